//! The call that explains what would become of a request. It changes nothing; it is a POST because
//! a request does not fit into a query.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    Doors, Explain,
    answer::Answer,
    api::{fields, unfit},
    request::Request,
};

/// Answers it.
pub(super) fn answer(request: &Request, doors: &impl Doors) -> Answer {
    match read(request) {
        Err(refused) => refused,
        Ok(asked) => match doors.explain(&asked) {
            Ok(said) => Answer::json(200, &said),
            Err(why) => unfit(&why),
        },
    }
}

/// The request in the body: `{"method": "GET", "url": "http://a/b", "headers": {"x": "1"},
/// "from": "10.0.0.1", "listener": "web"}`, of which only `url` must be there.
fn read(request: &Request) -> Result<Explain, Answer> {
    let mut asked = Explain { method: "GET".to_owned(), ..Explain::default() };
    for (name, value) in fields(request)? {
        let text = || value.as_str().map(str::to_owned);
        let is_text = |what: &str| unfit(&format!("`{what}` must be a string"));
        match name.as_str() {
            "method" => asked.method = text().ok_or_else(|| is_text("method"))?,
            "url" => asked.url = text().ok_or_else(|| is_text("url"))?,
            "listener" => asked.listener = Some(text().ok_or_else(|| is_text("listener"))?),
            "from" => {
                let from = text().and_then(|text| text.parse::<IpAddr>().ok());
                asked.from = Some(from.ok_or_else(|| unfit("`from` must be an IP address"))?);
            }
            "headers" => asked.headers = headers(&value)?,
            _ => {
                let known = "`method`, `url`, `headers`, `from`, `listener`";
                return Err(unfit(&format!("there is no `{name}`; it takes {known}")));
            }
        }
    }
    if asked.url.is_empty() {
        return Err(unfit("`url` is missing: http://app.example/path"));
    }
    Ok(asked)
}

/// The fields of the request: each a string, or a list of strings.
fn headers(value: &Value) -> Result<Vec<(String, String)>, Answer> {
    let refused = || unfit("`headers` must be an object of strings, or of lists of strings");
    let mut all = Vec::new();
    for (name, value) in value.as_object().ok_or_else(refused)? {
        let values = match value {
            Value::Array(values) => values.clone(),
            one => vec![one.clone()],
        };
        for value in values {
            all.push((name.clone(), value.as_str().ok_or_else(refused)?.to_owned()));
        }
    }
    Ok(all)
}
