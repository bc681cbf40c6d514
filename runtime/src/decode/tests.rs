//! Tests of the stage as a whole: the captures of shared/corpus, records that are wrong in every way, and mutations.

mod capture;
mod corpus;
mod epochs;
mod fold;
mod fuzz;
mod lineage;
mod records;
mod values;
