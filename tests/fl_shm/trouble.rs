//! What happens when something is wrong: a clear message on standard error, the right exit code, and not one
//! changed byte.
