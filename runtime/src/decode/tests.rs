//! Tests of the stage as a whole: the captures, records that are wrong in every way, and mutations.

mod capture;
mod epochs;
mod fold;
mod fuzz;
mod lineage;
mod records;
mod truth;
mod values;
