use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Person<'a> { name: &'a str }

#[derive(Output)]
struct Greeted { greeting: String }

#[transform(pass_rest)]
fn hello(person: Person) -> Greeted { Greeted { greeting: format!("hello, {}", person.name) } }
