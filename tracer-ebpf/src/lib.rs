//! What both sides of the kernel boundary share.
#![no_std]
