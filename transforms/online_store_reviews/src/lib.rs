//! Reviews: a rating is 1 to 5, a row with another is rejected; a comment says something, or there is none.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Review<'a> {
    #[lode(name = "Rating")]
    rating: Option<i32>,
    #[lode(name = "Comment")]
    comment: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Rated<'a> {
    #[lode(name = "Comment")]
    comment: Option<&'a str>,
}

#[transform(pass_rest)]
fn rate(review: Review<'_>) -> Result<Rated<'_>, String> {
    match review.rating {
        Some(1..=5) => Ok(Rated { comment: review.comment.map(str::trim).filter(|comment| !comment.is_empty()) }),
        Some(rating) => Err(format!("Rating `{rating}` is not within 1 to 5")),
        None => Err("Rating is null".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(rating: Option<i32>, comment: Option<&str>) -> Result<Rated<'_>, String> {
        rate(Review { rating, comment })
    }

    #[test]
    fn a_rating_is_within_one_to_five() {
        assert!(review(Some(1), None).is_ok());
        assert!(review(Some(5), None).is_ok());
        assert_eq!(review(Some(0), None), Err("Rating `0` is not within 1 to 5".into()));
        assert_eq!(review(Some(6), None), Err("Rating `6` is not within 1 to 5".into()));
        assert_eq!(review(None, None), Err("Rating is null".into()));
    }

    #[test]
    fn a_comment_says_something() {
        assert_eq!(review(Some(3), Some("  sturdy \n")), Ok(Rated { comment: Some("sturdy") }));
        assert_eq!(review(Some(3), Some(" ")), Ok(Rated { comment: None }));
    }
}
