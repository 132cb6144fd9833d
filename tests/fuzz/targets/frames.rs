//! Frames from the service: the same however they are cut, and what tungstenite takes them for.

use std::io::Cursor;

use bastide_relay::fuzzing::{Control, Unframed, unframe};
use tokio_tungstenite::tungstenite::protocol::frame::FrameSocket;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{self, OpCode};

/// A byte that says how many cuts follow, those, and then the frames.
pub(crate) fn frames(input: &[u8]) {
    let [cuts, rest @ ..] = input else { return };
    let (cuts, bytes) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
    let cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut)).collect();
    let whole = unframe(bytes, &[]);
    assert_eq!(whole, unframe(bytes, &cuts), "in pieces of {cuts:?}");
    assert_eq!(whole, unframe(bytes, &[1]), "byte by byte");
    if !matches!(whole.controls.as_slice(), [Control::Http(_)]) {
        compare(bytes, &whole);
    }
}

/// tungstenite reads frames up to the first that no server may send.
fn compare(bytes: &[u8], ours: &Unframed) {
    let mut socket = FrameSocket::new(Cursor::new(bytes));
    let mut payload = Vec::new();
    let mut controls = ours.controls.iter();
    while let Ok(Some(frame)) = socket.read(Some(bytes.len())) {
        let header = frame.header().clone();
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let body = frame.into_payload();
        let is_short = body.len() <= 125 && header.is_final;
        if reserved || header.mask.is_some() || (is_control && !is_short) {
            assert_eq!(controls.next(), Some(&Control::Malformed));
            break;
        }
        match header.opcode {
            OpCode::Data(coding::Data::Reserved(_)) | OpCode::Control(coding::Control::Reserved(_)) => {
                assert_eq!(controls.next(), Some(&Control::Malformed));
                break;
            }
            OpCode::Data(_) => payload.extend_from_slice(&body),
            OpCode::Control(coding::Control::Pong) => assert_eq!(controls.next(), Some(&Control::Pong)),
            OpCode::Control(coding::Control::Ping) => {
                assert_eq!(controls.next(), Some(&Control::Ping(body.to_vec())));
            }
            OpCode::Control(coding::Control::Close) => {
                let expected = body.first_chunk().map(|code| u16::from_be_bytes(*code));
                match (controls.next(), body.len()) {
                    (Some(Control::Close(1005, _)), 0) | (Some(Control::Malformed), 1) => {}
                    (Some(Control::Close(code, _)), 2..) => assert_eq!(Some(*code), expected),
                    (other, _) => panic!("a close frame with {body:x?} was taken for {other:?}"),
                }
                break;
            }
        }
    }
    // Payload of a frame that is not whole is handed on too.
    assert!(ours.payload.starts_with(&payload), "payload is handed on as it came");
}
