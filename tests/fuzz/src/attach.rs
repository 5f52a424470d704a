//! Machine code and what a file tells of it.

#[path = "../../../tracer-user/src/attach/linkage.rs"]
pub mod linkage;
#[path = "../../../tracer-user/src/attach/placement/mod.rs"]
pub mod placement;
#[path = "../../../tracer-user/src/attach/returns.rs"]
pub mod returns;
#[path = "../../../tracer-user/src/attach/stretch.rs"]
pub mod stretch;
#[path = "../../../tracer-user/src/attach/symbols.rs"]
pub mod symbols;
