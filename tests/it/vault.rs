//! What leasehold asks of Vault, where, and as whom.

pub(crate) mod addresses;
mod login;
mod proxy;
mod tokens;
mod wrapped;
