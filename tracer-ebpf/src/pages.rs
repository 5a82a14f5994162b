//! Bytes of a packet that are in pages of their own, not in the piece of memory that begins with its headers: a
//! driver may leave even these there.
//!
//! The kernel's own reader finds them (`bpf_dynptr_from_skb`, for tracepoints since 6.12). It is no helper with a
//! number but a function, whose number differs from kernel to kernel: user space puts it into the program.

use core::hint::black_box;
use core::mem::{MaybeUninit, transmute};

use aya_ebpf::helpers::generated::bpf_dynptr_read;
use tracer_common::{CAPTURE, PAGES_CALL};

use crate::state::Scratch;

/// `int bpf_dynptr_from_skb(struct __sk_buff *s, u64 flags, struct bpf_dynptr *ptr__uninit)`
type FromSkb = unsafe extern "C" fn(u64, u64, *mut Dynptr) -> i32;

/// `struct bpf_dynptr`, which nobody but the kernel looks into.
type Dynptr = [u64; 2];

/// Copies `size` bytes, at most [`CAPTURE`], into the scratch's packet.
#[inline(always)]
pub(crate) fn copy(skb: u64, offset: u32, size: u32, scratch: *mut Scratch) -> bool {
    // The compiler knows the bound and would drop the check; the verifier needs it.
    let size = black_box(size);
    if size > CAPTURE as u32 {
        return false;
    }
    let mut dynptr = MaybeUninit::<Dynptr>::uninit();
    let dynptr = dynptr.as_mut_ptr();
    // SAFETY: the number stands for a function of this kind wherever this can be reached, see `PAGES_CALL`;
    // the scratch is a live map value of this CPU, and `size` fits its `packet`.
    unsafe {
        let from_skb: FromSkb = transmute(PAGES_CALL as usize);
        if from_skb(skb, 0, dynptr) != 0 {
            return false;
        }
        let packet = (&raw mut (*scratch).packet).cast();
        bpf_dynptr_read(packet, size, dynptr.cast(), offset, 0) == 0
    }
}
