//! Has the programs call the kernel's own reader of packets, where it has one: a packet's bytes may be in pages that
//! nobody else can find.
//!
//! aya knows no functions of the kernel (`kfunc`s). Such a call looks like one of a helper, with another mark and
//! the function's number in the kernel's BTF.
//! <https://docs.kernel.org/bpf/kfuncs.html>

use std::borrow::Cow;

use aya::maps::{Array, Map, MapData};
use tracer_common::PAGES_CALL;
use tracer_common::handover::PAGES;

use super::btf::Btf;
use super::error::{Error, boxed};

/// For tracepoints since Linux 6.12.
pub(super) const FUNCTION: &str = "bpf_dynptr_from_skb";

/// An instruction's length in bytes.
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the byte of the registers.
const OF_FUNCTION: u8 = 2 << 4;

/// The object with calls of the function in place; `None` where this kernel has no such function, or the object no
/// such call.
pub(super) fn object(object: &[u8], btf: &Btf<'_>) -> Option<Vec<u8>> {
    let function = i32::try_from(btf.function(FUNCTION)?).ok()?;
    match with_calls(object, function) {
        Cow::Owned(object) => Some(object),
        Cow::Borrowed(_) => None,
    }
}

/// Says in the programs' map that they read pages.
pub(super) fn mark(mode: &mut Map) -> Result<(), Error> {
    let mut mode: Array<_, u32> = Array::try_from(mode).map_err(boxed)?;
    mode.set(PAGES, 1, 0).map_err(boxed)
}

/// Whether it says so.
pub(super) fn are_read(mode: &Array<MapData, u32>) -> bool {
    mode.get(&PAGES, 0).is_ok_and(|read| read != 0)
}

/// Sections of programs begin at multiples of an instruction's length.
fn with_calls(object: &[u8], function: i32) -> Cow<'_, [u8]> {
    let call = instruction(0, PAGES_CALL);
    let mut changed = Cow::Borrowed(object);
    for (index, found) in object.chunks_exact(INSTRUCTION).enumerate() {
        if found == call {
            let at = index * INSTRUCTION;
            changed.to_mut()[at..at + INSTRUCTION]
                .copy_from_slice(&instruction(OF_FUNCTION, function));
        }
    }
    changed
}

/// A call, as the kernel of this machine reads it.
fn instruction(registers: u8, number: i32) -> [u8; INSTRUCTION] {
    let [a, b, c, d] = number.to_ne_bytes();
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_that_number_change() {
        let other = instruction(0, 14);
        let object = [other, instruction(0, PAGES_CALL), other].concat();
        let changed = with_calls(&object, 0x1234);
        let wanted = [other, [0x85, 0x20, 0, 0, 0x34, 0x12, 0, 0], other].concat();
        assert_eq!(changed, wanted);
        assert!(matches!(with_calls(&wanted, 1), Cow::Borrowed(_)));
    }
}
