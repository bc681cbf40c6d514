//! Tests of the host against real and hostile guests.
