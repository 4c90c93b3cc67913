//! The command `explain`: what a running process would do with a request.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    Exit,
    ask::{Target, ask},
    say,
};

/// The request that is asked about.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    /// `Name: value` each.
    pub(super) headers: &'a [String],
    pub(super) from: Option<&'a str>,
}

/// Prints it.
pub(super) fn explain(target: &Target<'_>, asked: &Asked<'_>, as_json: bool) -> Exit {
    let mut headers = Map::new();
    for line in asked.headers {
        let Some((name, value)) = line.split_once(':') else {
            return say::usage(&format!("`{line}` is no field: -H \"Name: value\""));
        };
        let values = headers.entry(name.trim()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(value.trim().into());
        }
    }
    let mut body = json!({ "method": asked.method, "url": asked.url, "headers": headers });
    if let Some(from) = asked.from {
        body["from"] = from.into();
    }
    let answer = match ask(target, "POST", "/api/v1/explain", &body.to_string()) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match answer.status {
        200 if as_json => say::data(&format!("{said}\n")),
        200 => say::data(&described(&said)),
        _ => say::failed(said["error"].as_str().unwrap_or(answer.body.trim_end())),
    }
}

/// The answer as text: the listener, each route, each backend, what it comes to.
fn described(said: &Value) -> String {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let rows = |key: &str| said[key].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = format!(
        "{} {} of {} at listener {}\n",
        text(said, "method"),
        text(said, "url"),
        text(said, "client"),
        text(said, "listener"),
    );
    let all = rows("routes").iter().chain(rows("backends"));
    let width = all.map(|it| text(it, "name").chars().count()).max().unwrap_or(0);
    for route in rows("routes") {
        let mark = if route["taken"] == true { "->" } else { "  " };
        let _ =
            writeln!(out, "route {mark} {:width$}  {}", text(route, "name"), text(route, "why"));
    }
    if said["route"].is_null() && !said["pool"].is_null() {
        let _ = writeln!(out, "no route: the listener's own pool");
    }
    if !said["pool"].is_null() {
        let _ = writeln!(out, "pool {}, {}", text(said, "pool"), text(said, "algorithm"));
    }
    for it in rows("backends") {
        let mark = if it["picked"] == true { "->" } else { "  " };
        let (name, state, why) = (text(it, "name"), text(it, "state"), text(it, "why"));
        let _ = writeln!(out, "      {mark} {name:width$}  {state:<11}  {why}");
    }
    let why = text(said, "why");
    let _ = match said["outcome"].as_str().unwrap_or("?") {
        "picked" => writeln!(out, "{} is asked, {why}", text(said, "picked")),
        "refused" => {
            let refused = &said["refused"];
            match (refused["status"].as_u64(), refused["code"].as_str()) {
                (Some(status), Some(code)) => writeln!(out, "refused, {status} {code}: {why}"),
                _ => writeln!(out, "refused: {why}"),
            }
        }
        outcome => writeln!(out, "{outcome}: {why}"),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_backends_are_rows_with_the_one_taken_marked() {
        let said = json!({
            "method": "GET", "url": "http://a/v1", "client": "10.0.0.1", "listener": "web",
            "route": "api", "pool": "app", "algorithm": "round-robin",
            "routes": [
                { "name": "api", "taken": true, "why": "the most specific of those that match" },
                { "name": "admin", "taken": false, "why": "its path is /admin" },
            ],
            "backends": [
                { "name": "b1", "state": "up", "why": "may be asked", "picked": true },
                { "name": "b2", "state": "down", "why": "down: refused", "picked": false },
            ],
            "picked": "b1", "outcome": "picked", "why": "by round-robin",
        });
        let expected = "\
GET http://a/v1 of 10.0.0.1 at listener web
route -> api    the most specific of those that match
route    admin  its path is /admin
pool app, round-robin
      -> b1     up           may be asked
         b2     down         down: refused
b1 is asked, by round-robin
";
        assert_eq!(described(&said), expected);
        let said = json!({
            "method": "GET", "url": "/", "client": "10.0.0.1", "listener": "web",
            "outcome": "refused", "why": "No route",
            "refused": { "status": 404, "code": "no_route" },
        });
        let expected = "GET / of 10.0.0.1 at listener web\nrefused, 404 no_route: No route\n";
        assert_eq!(described(&said), expected);
    }
}
