//! From accept to the first byte: what is asked, what each refusal comes to, and what is tried again.

use std::time::Duration;

use bastide_core::{End, Fault, Freshness, RdpSignIn, RetryPolicy, Sku};
use bastide_relay::{Error, Event, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::bench::{Bench, PATIENCE, ended, options};
use crate::service::{Ask, Kind, Reply, Service, Vm, http};

#[tokio::test]
async fn a_connection_says_this_and_nothing_else() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let account = bench.hello(7).await;
    assert_eq!((ended(&account), account.sent, account.received), (&End::LocalClosed, 5, 5));
    assert_eq!(bench.released().await, 7);
    bench.judge(1).await;

    let [mint] = &bench.service.asks(Kind::Mint)[..] else { panic!() };
    assert_eq!(
        mint.body,
        "resourceId=%2Fsubscriptions%2Fs%2FresourceGroups%2Fg%2Fproviders%2FMicrosoft.Compute%2F\
         virtualMachines%2Fvm&protocol=tcptunnel&workloadHostPort=22&aztoken=cached%26%3D"
    );
    assert_eq!(mint.header_names(), ["content-type"]);
    assert_eq!(mint.header("content-type"), Some("application/x-www-form-urlencoded"));

    let [upgrade] = &bench.service.asks(Kind::Upgrade)[..] else { panic!() };
    assert_eq!(upgrade.line, "GET /webtunnelv2/ws%2F1?X-Node-Id=node%201 HTTP/1.1");
    let names = ["connection", "origin", "sec-websocket-key", "sec-websocket-version", "upgrade"];
    assert_eq!(upgrade.header_names(), names);
    let port = bench.service.port;
    assert_eq!(upgrade.header("origin"), Some(format!("https://localhost:{port}").as_str()));
    assert_eq!(upgrade.header("host"), Some(format!("localhost:{port}").as_str()));
    assert_eq!(upgrade.header("sec-websocket-version"), Some("13"));

    let [release] = &bench.service.asks(Kind::Release)[..] else { panic!() };
    assert_eq!((release.header_names(), release.body.as_str()), (vec!["x-node-id"], ""));
    assert_eq!(*bench.provider.asked.lock().unwrap(), [Freshness::Cached]);
}

#[tokio::test]
async fn a_revoked_token_is_renewed_once() {
    let refuse = |ask: &Ask| match ask.kind {
        Kind::Mint if ask.body.contains("aztoken=cached") => http("401 Unauthorized", ""),
        _ => Reply::Usual,
    };
    let bench = Bench::new(Service::new(refuse).await, options());
    bench.hello(1).await;
    assert_eq!(*bench.provider.asked.lock().unwrap(), [Freshness::Cached, Freshness::Cached, Freshness::New]);
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    assert_eq!((bench.service.count(Kind::Mint), bench.service.count(Kind::Release)), (2, 1));

    let never = |ask: &Ask| match ask.kind {
        Kind::Mint => {
            Reply::Http("401 Unauthorized", "x-ms-request-id: 4711\r\n", r#"{"message":"expired"}"#.into())
        }
        _ => Reply::Usual,
    };
    let bench = Bench::new(Service::new(never).await, options());
    let error = bench.fails(1).await.outcome.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the Bastion service refused a token for port 22 of 'vm': status 401, \"expired\""
    );
    assert_eq!((error.request_id(), error.fault()), (Some("4711"), Fault::SignIn));
    assert_eq!(bench.service.count(Kind::Mint), 2, "no third try");
}

#[tokio::test]
async fn a_challenge_is_met_once_and_remembered() {
    // {"c":1}
    const CHALLENGE: &str =
        "WWW-Authenticate: Bearer error=\"insufficient_claims\", claims=\"eyJjIjoxfQ==\"\r\n";
    let refuse = |ask: &Ask| match ask.kind {
        Kind::Mint if !ask.body.contains("aztoken=%7B%22c%22%3A1%7D") => {
            Reply::Http("401 Unauthorized", CHALLENGE, String::new())
        }
        _ => Reply::Usual,
    };
    let bench = Bench::new(Service::new(refuse).await, options());
    bench.hello(1).await;
    bench.hello(2).await;
    assert_eq!(*bench.provider.asked.lock().unwrap(), [Freshness::Cached; 3]);
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    assert_eq!((bench.service.count(Kind::Mint), bench.service.count(Kind::Release)), (3, 2));

    // A service that challenges for what it has been given wants a newer token; and then no more.
    let never = |ask: &Ask| match ask.kind {
        Kind::Mint => Reply::Http("401 Unauthorized", CHALLENGE, String::new()),
        _ => Reply::Usual,
    };
    let bench = Bench::new(Service::new(never).await, options());
    assert_eq!(bench.fails(1).await.outcome.unwrap_err().fault(), Fault::SignIn);
    assert_eq!(bench.fails(2).await.outcome.unwrap_err().fault(), Fault::SignIn);
    let asked = [[Freshness::Cached; 4].as_slice(), &[Freshness::New]].concat();
    assert_eq!((bench.service.count(Kind::Mint), bench.provider.asked.lock().unwrap().clone()), (4, asked));
}

#[tokio::test]
async fn refusals_of_a_mint() {
    struct Case {
        reply: (&'static str, &'static str, &'static str),
        mints: usize,
        fault: Fault,
        hint: &'static str,
    }
    let html = "<html><title>Sorry</title><h1>Forbidden</h1></html>";
    for case in [
        Case { reply: ("403 Forbidden", "", html), mints: 1, fault: Fault::Right, hint: "Reader" },
        Case { reply: ("404 Not Found", "", ""), mints: 1, fault: Fault::NotFound, hint: "" },
        Case {
            reply: ("500 Oops", "", r#"{"message":"Unexpected internal error"}"#),
            mints: 1,
            fault: Fault::Service,
            hint: "Reader",
        },
        Case { reply: ("500 Oops", "", ""), mints: 3, fault: Fault::Service, hint: "try again" },
        Case { reply: ("503 Busy", "Retry-After: 0\r\n", ""), mints: 3, fault: Fault::Service, hint: "" },
        Case {
            reply: ("503 Busy", "Retry-After: 3600\r\n", ""),
            mints: 1,
            fault: Fault::Service,
            hint: "try again in an hour",
        },
        Case { reply: ("429 Busy", "", ""), mints: 3, fault: Fault::Service, hint: "limit" },
        Case { reply: ("200 OK", "", "{}"), mints: 3, fault: Fault::Service, hint: "" },
        Case { reply: ("200 OK", "", "<html>"), mints: 3, fault: Fault::Service, hint: "" },
    ] {
        let (status, headers, body) = case.reply;
        let service = Service::new(move |ask| match ask.kind {
            Kind::Mint => Reply::Http(status, headers, body.into()),
            _ => Reply::Usual,
        });
        let bench = Bench::new(service.await, options());
        let error = bench.fails(1).await.outcome.unwrap_err();
        assert_eq!(bench.service.count(Kind::Mint), case.mints, "{status} {body}");
        assert_eq!(error.fault(), case.fault, "{error}");
        assert!(error.hint().unwrap().contains(case.hint), "{error}");
        assert_eq!(bench.relay.close(PATIENCE).await, 0);
        assert_eq!(bench.service.count(Kind::Release), 0);
    }
}

#[tokio::test]
async fn the_service_says_how_long_to_wait() {
    let service = Service::new(|ask| match ask.kind {
        Kind::Mint if ask.number == 1 => Reply::Http("503 Busy", "Retry-After: 7\r\n", String::new()),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    let (_local, near) = duplex(64);
    let pause = bench.event(|event| match event {
        Event::Retry { id: 1, attempt: 1, pause, reason } => Some((pause, reason)),
        _ => None,
    });
    let (pause, reason) = tokio::select! {
        _ = bench.carry(1, near) => panic!("before its time"),
        told = pause => told,
    };
    assert_eq!(pause, Duration::from_secs(7));
    assert_eq!(reason, "the Bastion service refused a token for port 22 of 'vm': status 503");
}

#[tokio::test]
async fn grants_with_something_missing_are_given_back_as_far_as_possible() {
    let bodies = [
        (r#"{"authToken":"auth-1/+","nodeId":"node 1"}"#, true),
        (r#"{"authToken":"auth-1/+","nodeId":"node 1","websocketToken":""}"#, true),
        (r#"{"nodeId":"node 1","websocketToken":"w"}"#, false),
    ];
    let once = Options { retry: RetryPolicy { retries: 0, ..RetryPolicy::default() }, ..options() };
    for (body, released) in bodies {
        let service = Service::new(move |ask| match ask.kind {
            Kind::Mint => http("200 OK", body),
            _ => Reply::Usual,
        });
        let bench = Bench::new(service.await, once.clone());
        let error = bench.fails(1).await.outcome.unwrap_err();
        assert!(matches!(error, Error::Grant(_)), "{error}");
        assert_eq!(bench.relay.close(PATIENCE).await, 0);
        bench.service.assert_released(usize::from(released));
    }
    let service = Service::new(|ask| match ask.kind {
        Kind::Mint => http("200 OK", r#"{"authToken":"a"}"#),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, once);
    bench.fails(1).await.outcome.unwrap_err();
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    let [release] = &bench.service.asks(Kind::Release)[..] else { panic!() };
    assert_eq!((release.line.as_str(), release.header("x-node-id")), ("DELETE /api/tokens/a HTTP/1.1", None));
}

#[tokio::test]
async fn a_developer_host_names_a_pod() {
    let bench = Bench::of_sku(Service::new(|_| Reply::Usual).await, options(), Sku::Developer);
    bench.hello(1).await;
    bench.judge(1).await;
    let [pod] = &bench.service.asks(Kind::Pod)[..] else { panic!() };
    assert_eq!(
        pod.body,
        r#"{"resourceId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm","bastionResourceId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b","vmPort":"22","azToken":"cached&=","connectionType":"nativeclient"}"#
    );
    assert_eq!(pod.header_names(), ["content-type"]);
    assert_eq!(pod.header("content-type"), Some("application/json"));
    assert_eq!(bench.service.asks(Kind::Upgrade)[0].line, "GET /omni/webtunnel/ws%2F1 HTTP/1.1");
}

#[tokio::test]
async fn what_is_no_pod_is_not_connected_to() {
    for (status, body, pods, words) in [
        ("403 Forbidden", "No.", 1, "status 403, \"No.\""),
        ("500 Oops", "host.example", 3, "status 500"),
        ("200 OK", "<html><title>Sign in</title></html>", 3, "named no data pod: Sign in"),
        ("200 OK", "", 3, "named no data pod: an empty answer"),
        ("200 OK", "host.example/path", 3, "named no data pod"),
        ("200 OK", "user@host.example", 3, "named no data pod"),
    ] {
        let service = Service::new(move |ask| match ask.kind {
            Kind::Pod => http(status, body),
            _ => Reply::Usual,
        });
        let bench = Bench::of_sku(service.await, options(), Sku::Developer);
        let error = bench.fails(1).await.outcome.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((bench.service.count(Kind::Pod), bench.service.count(Kind::Mint)), (pods, 0), "{error}");
    }
    // A token that is not good any more is found out here first.
    let service = Service::new(|ask| match ask.kind {
        Kind::Pod if ask.body.contains("cached") => http("401 Unauthorized", ""),
        _ => Reply::Usual,
    });
    let bench = Bench::of_sku(service.await, options(), Sku::QuickConnect);
    bench.hello(1).await;
    bench.judge(1).await;
    assert!(bench.service.asks(Kind::Mint)[0].body.ends_with("&aztoken=new"), "and not tried once more");
    assert_eq!(*bench.provider.asked.lock().unwrap(), [Freshness::Cached, Freshness::Cached, Freshness::New]);
}

#[tokio::test]
async fn the_gateways_file_is_asked_for_as_an_api() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let file = bench.relay.rdp_file(RdpSignIn::Entra).await.unwrap();
    assert_eq!(file.expose(), "full address:s:10.0.0.4\r\n");
    let asks = bench.service.asks(Kind::RdpFile);
    assert_eq!(
        asks[0].line,
        "GET /api/rdpfile?resourceId=%2Fsubscriptions%2Fs%2FresourceGroups%2Fg%2Fproviders%2FMicrosoft.Compute%2F\
         virtualMachines%2Fvm&format=rdp&rdpport=22&enablerdsaad=True HTTP/1.1"
    );
    assert_eq!(
        (asks[0].header_names(), asks[0].header("authorization")),
        (vec!["authorization"], Some("Bearer cached&="))
    );
    bench.judge(0).await;

    let told = async |script: fn(&Ask) -> Reply, sku| {
        let bench = Bench::of_sku(Service::new(script).await, options(), sku);
        let error = bench.relay.rdp_file(RdpSignIn::Password).await.err().map(|error| error.to_string());
        (bench.service.count(Kind::RdpFile), error.unwrap_or_default())
    };
    let refused =
        |status| format!("the Bastion service refused an RDP file for port 22 of 'vm': status {status}");
    // A token that is not good any more, and a service that is not well for a moment.
    let of_age: fn(&Ask) -> Reply = |ask| match ask.header("authorization") {
        Some("Bearer new") => Reply::Usual,
        _ => http("401 Unauthorized", ""),
    };
    assert_eq!(told(of_age, Sku::Standard).await, (2, String::new()));
    let busy: fn(&Ask) -> Reply = |ask| if ask.number < 3 { http("503 Busy", "") } else { Reply::Usual };
    assert_eq!(told(busy, Sku::Premium).await, (3, String::new()));
    assert_eq!(told(|_| http("503 Busy", ""), Sku::Standard).await, (3, refused(503)));
    assert_eq!(told(|_| http("403 Forbidden", ""), Sku::Standard).await, (1, refused(403)));
    let catch_all: fn(&Ask) -> Reply = |_| http("500 Oops", r#"{"message":"Unexpected internal error"}"#);
    let said = format!("{}, \"Unexpected internal error\"", refused(500));
    assert_eq!(told(catch_all, Sku::Standard).await, (1, said));
    let page: fn(&Ask) -> Reply = |_| http("200 OK", "<html><title>Sign in</title></html>");
    let said = "the Bastion service answered without an RDP file: Sign in".to_owned();
    assert_eq!(told(page, Sku::Standard).await, (1, said));
    let (asked, said) = told(|_| Reply::Usual, Sku::Developer).await;
    assert!(asked == 0 && said.ends_with("no RDP gateway"), "{said}");
}

#[tokio::test]
async fn status_101_decides() {
    for head in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 \r\nConnection: keep-alive, Upgrade\r\n\r\n",
        "HTTP/1.1 101 OK\r\nServer: x\r\nUpgrade: WebSocket\r\n\r\n",
    ] {
        let service = Service::new(|ask| match ask.kind {
            Kind::Upgrade => Reply::Switch(head.into(), b"", Vm::Echo),
            _ => Reply::Usual,
        });
        let bench = Bench::new(service.await, options());
        assert_eq!(ended(&bench.hello(1).await), &End::LocalClosed);
        bench.judge(1).await;
    }
}

#[tokio::test]
async fn the_proxy_layer_refuses_after_its_101() {
    const PAGE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>Tomcat</html>";
    let service = Service::new(|ask| match (ask.kind, ask.number) {
        // With the head, and after the first bytes: both are seen in the field.
        (Kind::Upgrade, 1) => Reply::Accept(PAGE, Vm::Gone),
        (Kind::Upgrade, 2) => Reply::Accept(&PAGE[..20], Vm::HangUp(6)),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    let account = bench.hello(1).await;
    assert_eq!((ended(&account), account.sent, account.received), (&End::LocalClosed, 5, 5));
    bench.judge(3).await;

    let service = Service::new(|ask| match ask.kind {
        Kind::Upgrade => Reply::Accept(PAGE, Vm::Gone),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    let error = bench.fails(1).await.outcome.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no working connection to 'vm' after 3 attempts: the service's proxy layer answered HTTP 400 after its \
         upgrade"
    );
    bench.judge(3).await;
}

/// What the user is told of a service that ends each WebSocket so, after how many attempts.
async fn told_of(vm: impl Fn(usize) -> Reply + Send + Sync + 'static) -> (Error, usize) {
    let service = Service::new(move |ask| match ask.kind {
        Kind::Upgrade => vm(ask.number),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    let error = bench.fails(1).await.outcome.unwrap_err();
    let mints = bench.service.count(Kind::Mint);
    bench.judge(mints).await;
    (error, mints)
}

#[tokio::test]
async fn a_closed_port_is_told_from_a_sick_service() {
    // The end of the bytes and a close frame without a code: the service's once, the VM's when it comes again.
    for bytes in [&b""[..], &[0x88, 0]] {
        let (error, mints) = told_of(move |_| Reply::Accept(bytes, Vm::HangUp(1))).await;
        assert!(matches!(error, Error::PortClosed { port: 22, attempts: 2, .. }), "{error}");
        assert_eq!((error.fault(), mints), (Fault::Vm, 2));
        assert!(error.hint().unwrap().contains("nothing listens on port 22"), "{error}");
    }
    // 1000 is the VM's own word.
    let (error, mints) = told_of(|_| Reply::Accept(&[0x88, 2, 3, 0xe8], Vm::HangUp(1))).await;
    assert!(matches!(error, Error::PortClosed { attempts: 1, .. }), "{error}");
    assert_eq!(mints, 1);
    // 1001, 1011, 1012, 1013, and half a frame.
    for bytes in
        [&[0x88, 2, 3, 0xe9][..], &[0x88, 2, 3, 0xf3], &[0x88, 2, 3, 0xf4], &[0x88, 2, 3, 0xf5], &[0x82, 5]]
    {
        let (error, mints) = told_of(move |_| Reply::Accept(bytes, Vm::HangUp(1))).await;
        assert!(matches!(error, Error::Sick { attempts: 3, .. }), "{bytes:x?}: {error}");
        assert_eq!((error.fault(), mints), (Fault::Service, 3), "{bytes:x?}");
    }
    // 1008, policy violation: another try changes nothing, and the port is not to blame.
    let (error, mints) = told_of(|_| Reply::Accept(&[0x88, 2, 3, 0xf0], Vm::HangUp(1))).await;
    assert!(matches!(error, Error::Sick { attempts: 1, .. }), "{error}");
    assert_eq!(mints, 1);
    // A mix: two clean ends must follow each other.
    let (error, mints) = told_of(|number| match number {
        1 => Reply::Accept(&[0x88, 2, 3, 0xf3], Vm::HangUp(1)),
        _ => Reply::Accept(b"", Vm::HangUp(1)),
    })
    .await;
    assert!(matches!(error, Error::PortClosed { attempts: 3, .. }), "{error}");
    assert_eq!(mints, 3);
    let (error, _) = told_of(|number| match number {
        1 => Reply::Accept(b"", Vm::HangUp(1)),
        _ => Reply::Accept(&[0x88, 2, 3, 0xf3], Vm::HangUp(1)),
    })
    .await;
    assert!(matches!(error, Error::Sick { attempts: 3, .. }), "{error}");
}

#[tokio::test]
async fn what_the_vm_may_have_done_is_not_done_twice() {
    // The frame of `hello` has 11 bytes. The end of the bytes, 1005, and 1000; then what is the service's.
    for (bytes, mints) in [(&b""[..], 1), (&[0x88, 0], 1), (&[0x88, 2, 3, 0xe8], 1), (&[0x88, 2, 3, 0xf3], 3)]
    {
        let service = Service::new(move |ask| match ask.kind {
            Kind::Upgrade => Reply::Accept(b"", Vm::LastWords(11, bytes)),
            _ => Reply::Usual,
        });
        let patient = Options { linger: Duration::from_secs(10), ..options() };
        let bench = Bench::new(service.await, patient);
        let (mut local, near) = duplex(4096);
        local.write_all(b"hello").await.unwrap();
        local.shutdown().await.unwrap();
        let program = async { local.read_to_end(&mut Vec::new()).await };
        let (account, _) = tokio::join!(bench.carry(1, near), program);
        let error = account.outcome.unwrap_err();
        if mints == 1 {
            assert_eq!(
                error.to_string(),
                "port 22 of 'vm' was closed before anything came back, after all 5 bytes had been sent"
            );
            assert_eq!(error.fault(), Fault::Vm);
        } else {
            assert!(matches!(error, Error::Sick { attempts: 3, .. }), "{error}");
        }
        bench.judge(mints).await;
    }
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_vm_was_heard() {
    let service = Service::new(|ask| match ask.kind {
        Kind::Upgrade => Reply::Accept(&[0x82, 1, b'x', 0x88, 2, 3, 0xf3], Vm::HangUp(100)),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    let account = bench.fails(1).await;
    assert_eq!(ended(&account), &End::Closed { code: 1011, reason: String::new() });
    assert_eq!(account.received, 1);
    bench.judge(1).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_not_tried_again() {
    let service = Service::new(|_| Reply::Usual).await;
    let bench = Bench::trusting(service, options(), Sku::Standard, Vec::new());
    let error = bench.fails(1).await.outcome.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    bench.judge(0).await;
    let told = bench.told().await;
    assert!(matches!(told[..], [Event::Opened { id: 1, .. }]), "{told:?}");
}
