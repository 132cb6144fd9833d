//! Whom we trust, and what is said about those whom we do not.

use bastide_net::{Distrust, Error};
use rcgen::{CertificateParams, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Authority, Peer, Server, network, told};

async fn echo(mut peer: Peer) {
    let byte: [u8; 4] = peer.body().await;
    peer.say(byte).await;
    peer.rest().await;
}

async fn refused(authority: &Authority, trusted: bool, spoil: impl FnOnce(&mut CertificateParams)) -> Error {
    let server = Server::tls(authority.acceptor(spoil), echo).await;
    let network = if trusted { authority.network() } else { network() };
    network.dial(&server.origin("https")).await.unwrap_err()
}

#[tokio::test]
async fn a_bundle_makes_its_authority_trusted() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), echo).await;
    let mut wire = authority.network().dial(&server.origin("https")).await.unwrap();
    wire.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    wire.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

#[tokio::test]
async fn a_walk_shows_each_step() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), echo).await;
    let walk = authority.network().walk(&server.origin("https")).unwrap();
    assert_eq!(walk.proxy(), None);
    let addresses = walk.resolve().await.unwrap();
    let reached = walk.connect(addresses.clone()).await.unwrap();
    assert!(addresses.contains(&reached.address().unwrap()), "{addresses:?}");
    let chain = walk.secure(reached).await.unwrap();
    assert_eq!(chain.certificates()[0].subject, "the server");

    let walk = network().walk(&server.origin("https")).unwrap();
    let reached = walk.connect(addresses).await.unwrap();
    let error = walk.secure(reached).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn a_stranger_is_named_with_all_that_it_presented() {
    let authority = Authority::new("Zscaler Root CA");
    let error = refused(&authority, false, |_| ()).await;
    let Error::Certificate { peer, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        told(&error),
        format!(
            "the certificate of {peer} is not accepted: it is signed by 'Zscaler Root CA', which this \
             machine does not trust: it presented 'the server' (issued by 'Zscaler Root CA', valid from \
             2021-01-02 to 2121-03-04), then 'Zscaler Root CA' (issued by 'Zscaler Root CA', valid from \
             2020-01-02 to 2120-03-04)"
        )
    );
    assert!(error.hint().unwrap().contains("--ca-bundle FILE"), "{:?}", error.hint());
    assert!(error.is_connect() && !error.is_timeout() && !error.is_configuration());
    let presented = error.presented().unwrap().certificates();
    assert_eq!(presented[0].names, ["localhost", "127.0.0.1"]);
}

#[tokio::test]
async fn an_authority_that_was_made_anew_is_another_one() {
    let (old, new) = (Authority::new("Contoso Root CA"), Authority::new("Contoso Root CA"));
    let server = Server::tls(new.acceptor(|_| ()), echo).await;
    let error = old.network().dial(&server.origin("https")).await.unwrap_err();
    let Error::Certificate { distrust, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*distrust, Distrust::OtherAuthority { authority: "Contoso Root CA".to_owned() });
    assert!(error.hint().unwrap().contains("its new certificate with --ca-bundle"), "{:?}", error.hint());
}

#[tokio::test]
async fn expired_early_and_wrong_names_say_so() {
    let authority = Authority::new("Contoso Root CA");

    let error = refused(&authority, true, |params| params.not_after = date_time_ymd(2022, 5, 6)).await;
    assert!(told(&error).contains("'the server' expired on 2022-05-06"), "{}", told(&error));
    assert!(error.hint().unwrap().contains("clock"));

    let error = refused(&authority, true, |params| params.not_before = date_time_ymd(2110, 5, 6)).await;
    assert!(told(&error).contains("'the server' is not valid before 2110-05-06"), "{}", told(&error));

    let error = refused(&authority, true, |params| {
        params.subject_alt_names =
            CertificateParams::new(["other.example".to_owned()]).unwrap().subject_alt_names;
    })
    .await;
    assert!(told(&error).contains("it is for another name: other.example"), "{}", told(&error));
    assert!(error.hint().unwrap().contains("host name"));
}

#[tokio::test]
async fn a_strangers_words_are_escaped() {
    let authority = Authority::new("\u{1b}]0;owned\u{7} CA");
    let error = refused(&authority, false, |_| ()).await;
    let Error::Certificate { distrust, .. } = &error else { panic!("{error:?}") };
    let authority = "\\u{1b}]0;owned\\u{7} CA".to_owned();
    assert_eq!(*distrust, Distrust::UnknownAuthority { authority });
    assert!(!told(&error).contains('\u{1b}') && !error.hint().unwrap().contains('\u{1b}'));
}

#[tokio::test]
async fn a_server_without_tls_is_no_riddle() {
    let server =
        Server::plain(|mut peer| async move { peer.say("HTTP/1.1 400 Bad Request\r\n\r\n").await }).await;
    let error = network().dial(&server.origin("https")).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("no TLS on this port"));
}

#[tokio::test]
async fn an_end_with_and_without_close_notify() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), |mut peer| async move {
        peer.say("last").await;
        if peer.number == 0 {
            peer.stream.shutdown().await.unwrap();
            peer.rest().await;
        }
    })
    .await;
    let network = authority.network();
    for cut_short in [false, true] {
        let mut wire = network.dial(&server.origin("https")).await.unwrap();
        let mut read = Vec::new();
        wire.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.as_slice(), wire.cut_short()), (b"last".as_slice(), cut_short));
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn shutting_down_says_goodbye_and_still_hears_the_answer() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), |mut peer| async move {
        // read_to_end succeeds over TLS only after a close_notify.
        let mut all = Vec::new();
        let said = match peer.stream.read_to_end(&mut all).await {
            Ok(_) => format!("{} bytes and goodbye", all.len()),
            Err(error) => error.to_string(),
        };
        peer.say(said).await;
        peer.stream.shutdown().await.unwrap();
    })
    .await;
    let mut wire = authority.network().dial(&server.origin("https")).await.unwrap();
    // More than all buffers between: written whole, in frames as the relay does.
    let frame = vec![7; 4096];
    for _ in 0..512 {
        wire.write_all(&frame).await.unwrap();
    }
    wire.shutdown().await.unwrap();
    let mut answer = String::new();
    wire.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "2097152 bytes and goodbye");
}
