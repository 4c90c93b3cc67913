//! The JSON Schema of the configuration, which editors use.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    file::{Backend, Bind, CoresText, DurationText, File, ShareNumber, SizeText, StatusText},
    foreign,
};

/// The schema, as JSON.
pub(super) fn text() -> String {
    let settings = schemars::generate::SchemaSettings::draft07();
    let schema = settings.into_generator().into_root_schema_for::<File>();
    let mut value = schema.to_value();
    without_null(&mut value);
    without_unbuilt(&mut value);
    format!("{value:#}\n")
}

/// A key that is not built yet is no key, and what only it refers to is nothing.
fn without_unbuilt(schema: &mut serde_json::Value) {
    use serde_json::Value;
    let Some(Value::Object(definitions)) = schema.get_mut("definitions") else { return };
    for (section, definition) in definitions.iter_mut() {
        if let Some(Value::Object(keys)) = definition.get_mut("properties") {
            keys.retain(|key, _| foreign::is_built(section, key));
        }
    }
    loop {
        let text = schema.to_string();
        let Some(Value::Object(definitions)) = schema.get_mut("definitions") else { return };
        let before = definitions.len();
        definitions.retain(|name, _| text.contains(&format!("\"#/definitions/{name}\"")));
        if definitions.len() == before {
            return;
        }
    }
}

/// TOML has no null: a key that may be absent is simply not required.
fn without_null(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(object) => {
            for word in ["anyOf", "type"] {
                let Some(Value::Array(kinds)) = object.get_mut(word) else { continue };
                kinds.retain(|kind| *kind != "null" && kind["type"] != "null");
                let only = (kinds.len() == 1).then(|| kinds.remove(0));
                match only {
                    Some(Value::Object(only)) => {
                        object.remove(word);
                        object.extend(only);
                    }
                    Some(only) => {
                        object.insert(word.to_owned(), only);
                    }
                    None => {}
                }
            }
            // An integer of TOML is checked against the range of its key, not of its Rust type.
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(list) => list.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

macro_rules! schema_of {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema_of!(DurationText, "duration", {
    "type": "string",
    "description": "A number and a unit: \"500ms\", \"2s\", \"1m\", \"1h\", \"1d\".",
    "pattern": "^[0-9]+\\s*(ms|s|m|h|d)$|\\$\\{"
});

schema_of!(SizeText, "size", {
    "type": "string",
    "description": "A number and a unit: \"512B\", \"64KiB\", \"10MB\".",
    "pattern": "^[0-9]+\\s*(B|KB|KiB|MB|MiB|GB|GiB)$|\\$\\{"
});

schema_of!(CoresText, "cores", {
    "anyOf": [
        { "type": "integer", "minimum": 1 },
        { "type": "string", "pattern": "^(auto|[0-9]+(\\s*[,-]\\s*[0-9]+)*)$|\\$\\{" }
    ]
});

schema_of!(ShareNumber, "share", {
    "type": "number",
    "description": "A share of a whole, such as 0.5, or a factor, such as 1.25.",
    "minimum": 0
});

schema_of!(StatusText, "status", {
    "anyOf": [
        { "type": "integer", "minimum": 100, "maximum": 999 },
        { "type": "string", "pattern": "^[1-9][0-9]{2}( ?- ?[1-9][0-9]{2})?$|\\$\\{" }
    ]
});

schema_of!(Bind, "bind", {
    "anyOf": [
        {
            "type": "string",
            "description": "\"0.0.0.0:80\", \"[::]:80\", \"unix:/run/x.sock\", \"unix:@name\""
        },
        {
            "type": "object",
            "properties": {
                "address": {
                    "type": "string",
                    "description": "The address; the one required key."
                },
                "mode": {
                    "type": "string",
                    "pattern": "^0?[0-7]{3}$|\\$\\{",
                    "description":
                        "The mode of a socket's file, such as \"0660\"; absent: by the umask."
                },
                "owner": {
                    "type": "string",
                    "description":
                        "Its owner: \"USER\", \"USER:GROUP\", \":GROUP\"; absent: as the process."
                }
            },
            "required": ["address"],
            "additionalProperties": false
        }
    ]
});

schema_of!(Backend, "backend", {
    "anyOf": [
        {
            "type": "string",
            "description":
                "\"10.0.0.1:3000\", \"[::1]:3000\", \"app.internal:8080\", \"unix:/run/app.sock\""
        },
        {
            "type": "object",
            "properties": {
                "address": {
                    "type": "string",
                    "description": "A host and a port, or a Unix socket; the one required key."
                },
                "weight": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 256,
                    "default": 1,
                    "description": "Its share, 0 to 256; 0 = no new traffic."
                },
                "name": {
                    "type": "string",
                    "description": "Its name in logs and metrics; absent: its address."
                },
                "backup": {
                    "type": "boolean",
                    "default": false,
                    "description": "Whether it serves only when no regular backend can."
                },
                "max-in-flight": {
                    "type": "integer",
                    "minimum": 0,
                    "default": 0,
                    "description": "Requests in flight at once, over all cores; 0 = no bound."
                }
            },
            "required": ["address"],
            "additionalProperties": false
        }
    ]
});
