//! Scripts for the machines.
