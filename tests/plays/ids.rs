//! Plays of ids: that of a request, and that of its trace (W3C Trace Context).
//!
//! Backends, the access log and our own answers must tell the same ones.

use crate::{
    backend::{Request, Script},
    client::Client,
    frames::Http2,
    logs::Folder,
    scripts::answers,
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_request_has_ids_that_backend_and_log_agree_on,
    a_trace_goes_on_in_both_versions_of_http,
    what_is_no_trace_is_replaced_and_takes_its_state_along,
    an_id_is_kept_of_a_trusted_proxy_alone,
    our_own_answer_has_the_id_that_a_trusted_proxy_gave,
);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRUSTING: &str = "trusted-proxies = [\"127.0.0.0/8\"]";

/// What a backend receives for a request with these fields.
#[track_caller]
fn forwarded(stage: &Stage, fields: &str) -> Request {
    let mut client: Client = stage.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: play.test\r\n{fields}\r\n"));
    client.response().expect(200, "ok");
    stage.last_request()
}

/// The ids of trace and parent, and the flags.
#[track_caller]
fn parts(request: &Request) -> [String; 3] {
    let value = request.field("traceparent").unwrap();
    let parts: Vec<_> = value.split('-').map(str::to_owned).collect();
    let [version, trace, parent, flags] = <[String; 4]>::try_from(parts).unwrap();
    assert_eq!((&*version, trace.len(), parent.len()), ("00", 32, 16), "{value}");
    [trace, parent, flags]
}

fn a_request_has_ids_that_backend_and_log_agree_on(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("ok")).start();
    let requests = [(); 3].map(|()| forwarded(&stage, "X-Request-Id: mine\r\nX_Request_Id: a\r\n"));
    let lines = folder.lines(stage);
    let mut seen = Vec::new();
    for (request, line) in requests.iter().zip(&lines) {
        let id = request.field("x-request-id").unwrap();
        let [trace, parent, flags] = parts(request);
        assert_eq!((&line["request_id"], &line["trace_id"]), (&id.into(), &(&*trace).into()));
        assert_eq!((id.len(), &*flags, request.field("x_request_id")), (26, "01", None));
        seen.extend([id.to_owned(), trace, parent]);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 9, "none comes twice");
}

fn a_trace_goes_on_in_both_versions_of_http(driver: Driver) {
    let folder = Folder::new();
    let both = "protocols = [\"h1\", \"h2\"]";
    let stage = folder.stage(driver, "json").listener(both).backend(answers("ok")).start();
    let fields = |flags: &str| {
        let parent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-{flags}\r\n");
        format!("{parent}tracestate: a=1,b@c=2\r\ntracestate: d=3\r\n")
    };
    let mut client = Http2::connect(stage.address());
    for flags in ["01", "00"] {
        let first = forwarded(&stage, &fields(flags));
        let id = client.ask("GET /", &fields(flags).replace("\r\n", "\n"), true);
        client.answer(id).expect(200, "ok");
        for request in [first, stage.last_request()] {
            let [trace, parent, flag] = parts(&request);
            assert_eq!((&*trace, &*flag), (TRACE, flags), "honoured, never set");
            assert_ne!(parent, "b7ad6b7169203331", "the parent is ours");
            let states = request.head.all("tracestate");
            assert_eq!(states, ["a=1,b@c=2", "d=3"]);
        }
    }
    drop(client);
    let lines = folder.lines(stage);
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line["trace_id"] == TRACE), "{lines:?}");
}

fn what_is_no_trace_is_replaced_and_takes_its_state_along(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    for parent in [
        String::new(),
        format!("traceparent: 00-{TRACE}-0000000000000000-01\r\n"),
        format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n").repeat(2),
    ] {
        let request = forwarded(&stage, &format!("{parent}Tracestate: a=1\r\n"));
        let [trace, ..] = parts(&request);
        assert_ne!(trace, TRACE);
        assert_eq!(request.field("tracestate"), None);
    }
}

fn an_id_is_kept_of_a_trusted_proxy_alone(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").listener(TRUSTING).backend(answers("ok")).start();
    let given = "Root=1-67891233-abcdef012345678912345678";
    let request = forwarded(&stage, &format!("X-Request-ID: {given}\r\n"));
    assert_eq!(request.field("x-request-id"), Some(given));
    let request = forwarded(&stage, "X-Request-ID: two words\r\n");
    assert_eq!(request.field("x-request-id").unwrap().len(), 26);
    let lines = folder.lines(stage);
    assert_eq!(lines[0]["request_id"], given);
    assert_eq!(lines[1]["request_id"], request.field("x-request-id").unwrap());
}

fn our_own_answer_has_the_id_that_a_trusted_proxy_gave(driver: Driver) {
    for (listener, id) in [(TRUSTING, Some("given-1")), ("half-close = false", None)] {
        let folder = Folder::new();
        let stage =
            folder.stage(driver, "json").listener(listener).backend(Script::Refuses).start();
        let mut client = stage.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: given-1\r\n\r\n");
        let response = client.response();
        response.expect_fault(502, "connect_failed");
        let told = response.field("x-request-id").unwrap().to_owned();
        assert!(id.map_or(told.len() == 26, |id| id == told), "{told}");
        let noted = stage.happened();
        let lines = folder.lines(stage);
        assert_eq!(lines[0]["request_id"], *told, "{noted:?}");
    }
}
