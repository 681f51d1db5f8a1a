//! Histories of what clients saw, and the judge of them.
