//! Claims that are demanded of tokens while connections are being made: asked for once, and remembered. It leaves out
//! ways to sign in that cannot give them (`sign_in`).

use std::io::Read as _;

use bastide_emulator::transcript::Kind;
use bastide_tests::Tunnel;

use crate::identity::lab;

#[test]
fn the_data_planes_challenge_is_met_once() {
    let lab = lab();
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 20";
    let tunnel = Tunnel::start(lab.bastide(line));
    let connects = || {
        let mut bytes = Vec::new();
        tunnel.connect().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5]);
    };
    connects();
    let counts = || [Kind::Token, Kind::Mint].map(|kind| lab.transcript().count(kind));
    // The lease that was minted ahead has served the first connection.
    assert_eq!(counts(), [1, 1]);
    lab.emulator().demand_claims(Some(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#));
    connects();
    assert_eq!(counts(), [2, 3], "refused, and minted with the claims");
    connects();
    assert_eq!(counts(), [2, 4]);
    tunnel.interrupt();
}
