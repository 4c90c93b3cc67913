//! The calls about pools and their backends: views, and orders that change one.
//!
//! A name in the configuration that stands for several backends can be looked at and ordered about
//! like one. What a view says is made elsewhere (`Doors::pools`); nothing is kept here.

use serde_json::{Value, json};

use super::{
    BackendWrite, Doors, Pools, WriteDenied,
    answer::Answer,
    api::{Call, Called, fields, meant_for, moved, unfit},
    request::Request,
};
use crate::config;
use crate::plan::{Duty, Settings};
use crate::policy::overlay::{Order, Refused};

/// One of the views.
pub(super) fn show(called: &Called, pools: &Pools) -> Answer {
    let view = match called.names.as_slice() {
        [] => Ok(json!({ "pools": pools.pools })),
        [pool] if called.call == Call::Pool => find(pools, pool).cloned(),
        [pool] => find(pools, pool).map(|pool| json!({ "backends": pool["backends"] })),
        [pool, backend, ..] => find_backend(pools, pool, backend),
    };
    match view {
        Ok(view) => Answer::json(200, &view).of_generation(pools.generation),
        Err(refused) => self::refused(&refused),
    }
}

fn find<'a>(pools: &'a Pools, name: &str) -> Result<&'a Value, Refused> {
    let found = pools.pools.iter().find(|pool| pool["name"] == name);
    found.ok_or_else(|| Refused::NoPool { pool: name.to_owned() })
}

/// A backend, or all that a configured name stands for.
fn find_backend(pools: &Pools, pool: &str, name: &str) -> Result<Value, Refused> {
    let backends = find(pools, pool)?["backends"].as_array().into_iter().flatten();
    if let Some(found) = backends.clone().find(|backend| backend["name"] == name) {
        return Ok(found.clone());
    }
    let members: Vec<&Value> = backends.filter(|backend| backend["entry"] == name).collect();
    let Some(first) = members.first() else {
        return Err(Refused::NoBackend { pool: pool.to_owned(), backend: name.to_owned() });
    };
    // What is not the same for all is null.
    let common = |key: &str| {
        let is_common = members.iter().all(|member| member[key] == first[key]);
        if is_common { first[key].clone() } else { Value::Null }
    };
    let sum = |key: &str| members.iter().filter_map(|member| member[key].as_u64()).sum::<u64>();
    Ok(json!({
        "name": name,
        "weight": common("weight"),
        "origin": common("origin"),
        "state": common("state"),
        "activeConnections": sum("activeConnections"),
        "totalRequests": sum("totalRequests"),
        "backends": members,
    }))
}

/// Carries out one of the orders.
pub(super) fn write(called: &Called, request: &Request, doors: &impl Doors, from: &str) -> Answer {
    let write = match order(called, request) {
        Ok((order, drain)) => {
            BackendWrite { order, drain, only_if: meant_for(request), from: from.to_owned() }
        }
        Err(refused) => return refused,
    };
    let order = write.order.clone();
    let done = match doors.write(write) {
        Ok(done) => done,
        Err(WriteDenied::Order(refused)) => return self::refused(&refused),
        Err(WriteDenied::Moved(generation)) => return moved(generation),
        Err(WriteDenied::NotKept(why)) => return Answer::error(507, "not_kept", &why),
        Err(WriteDenied::Failed(why)) => return Answer::error(422, "refused", &why),
    };
    let (pool, backend) = order.of();
    let is_gone = matches!(order, Order::Remove { .. }) && !done.is_draining;
    if is_gone {
        return Answer::empty(204).of_generation(done.generation);
    }
    let pools = doors.pools();
    // It may be gone again by now.
    let view = find_backend(&pools, pool, backend);
    let mut view = view.unwrap_or_else(|_| json!({ "name": backend }));
    if !done.warnings.is_empty() {
        view["warnings"] = json!(done.warnings);
    }
    match order {
        Order::Add { .. } => {
            let at = format!("/api/v1/pools/{}/backends/{}", encoded(pool), encoded(backend));
            Answer::json(201, &view).with("location", at)
        }
        Order::Set { .. } => Answer::json(200, &view),
        Order::Remove { .. } => Answer::json(202, &view),
    }
    .of_generation(done.generation)
}

/// The order of a request, and how long a removal waits.
fn order(
    called: &Called,
    request: &Request,
) -> Result<(Order, Option<std::time::Duration>), Answer> {
    let name = |place: usize| called.names.get(place).cloned().unwrap_or_default();
    let pool = name(0);
    match called.call {
        Call::AddBackend => addition(pool, fields(request)?).map(|order| (order, None)),
        Call::RemoveBackend => Ok((Order::Remove { pool, backend: name(1) }, drain(request)?)),
        _ => {
            let settings = settings(fields(request)?)?;
            Ok((Order::Set { pool, backend: name(1), settings }, None))
        }
    }
}

/// `{"address": "10.0.0.9:3000", "name": "b9", "weight": 3}`.
fn addition(pool: String, fields: Vec<(String, Value)>) -> Result<Order, Answer> {
    let (mut address, mut backend, mut weight) = (None, None, 1);
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("address", Value::String(text)) => address = Some(text),
            ("name", Value::String(text)) => backend = Some(text),
            ("weight", value) => weight = self::weight(&value)?,
            ("address" | "name", _) => return Err(unfit(&format!("`{name}` must be a string"))),
            _ => {
                let known = "`address`, `name` and `weight`";
                return Err(unfit(&format!("there is no `{name}`; a backend has {known}")));
            }
        }
    }
    let Some(text) = address else { return Err(unfit("a backend needs an `address`")) };
    let address = config::backend_address(&text).map_err(|why| unfit(&why))?;
    Ok(Order::Add { pool, backend: backend.unwrap_or(text), address, weight })
}

/// `{"weight": 3, "state": "draining"}`.
fn settings(fields: Vec<(String, Value)>) -> Result<Settings, Answer> {
    let mut settings = Settings::default();
    for (name, value) in fields {
        match (name.as_str(), &value) {
            ("weight", _) => settings.weight = Some(weight(&value)?),
            ("state", Value::String(word)) => {
                let duty = Duty::of(word);
                let states = "expected \"up\", \"draining\" or \"maintenance\"";
                let unknown = || unfit(&format!("there is no state \"{word}\": {states}"));
                settings.duty = Some(duty.ok_or_else(unknown)?);
            }
            ("state", _) => return Err(unfit("`state` must be a string")),
            _ => {
                let known = "`weight` and `state`";
                return Err(unfit(&format!("there is no `{name}` to set; there are {known}")));
            }
        }
    }
    if settings.is_empty() {
        return Err(unfit("nothing to set: `weight`, `state` or both"));
    }
    Ok(settings)
}

fn weight(value: &Value) -> Result<u16, Answer> {
    // `3.0` is a whole number, too.
    let whole = value.as_f64().filter(|number| (0.0..=256.0).contains(number));
    let number = whole.filter(|number| number.fract() == 0.0).map(|number| number as u16);
    number.ok_or_else(|| unfit("`weight` must be a whole number from 0 to 256"))
}

/// `?drain=30s`.
fn drain(request: &Request) -> Result<Option<std::time::Duration>, Answer> {
    let query = request.head.bytes(request.head.query);
    let mut time = None;
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let pair = String::from_utf8_lossy(pair);
        match pair.split_once('=').unwrap_or((&pair, "")) {
            ("drain", text) => {
                time = Some(config::duration(text).map_err(|why| unfit(&format!("drain: {why}")))?);
            }
            (name, _) => return Err(unfit(&format!("there is no `{name}`; there is `drain`"))),
        }
    }
    Ok(time)
}

/// Why an order makes no plan.
fn refused(refused: &Refused) -> Answer {
    let (status, code) = match refused {
        Refused::NoPool { .. } | Refused::NoBackend { .. } => (404, "not_found"),
        Refused::NameTaken { .. } | Refused::AddressTaken { .. } => (409, "exists"),
        Refused::Last { .. } => (409, "last_backend"),
        Refused::Full { .. } => (409, "full"),
        Refused::NotAName { .. } | Refused::NotAnAddress { .. } | Refused::Weight => {
            (422, "unprocessable")
        }
    };
    Answer::error(status, code, &refused.to_string())
}

/// A name as a part of a path (RFC 3986 §3.3).
pub(crate) fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
