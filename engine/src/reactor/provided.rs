//! Memory that the kernel fills with what arrives on sockets, and gets back when it is read.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

/// One buffer with bytes that arrived. Goes back to its ring when dropped.
pub(crate) struct Provided {
    bytes: Vec<u8>,
    spare: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Deref for Provided {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        self.spare.borrow_mut().push(std::mem::take(&mut self.bytes));
    }
}
