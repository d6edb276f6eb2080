//! Keys as bytes, text and numbers, by the declared format.

use crate::column::Type;
use crate::pipeline::KeyFormat;
use std::borrow::Cow;

/// A key as text: a number as its digits, a JSON text unquoted, other JSON as its source. Err: what it is not.
pub fn text(key: &[u8], format: KeyFormat) -> Result<Cow<'_, str>, &'static str> {
    let utf8 = || std::str::from_utf8(key).map_err(|_| "the key is not UTF-8");
    match format {
        KeyFormat::Text => utf8().map(Cow::Borrowed),
        KeyFormat::Json => match utf8()?.trim() {
            quoted if quoted.starts_with('"') => serde_json::from_str::<String>(quoted).map(Cow::Owned).map_err(|_| "the key is not JSON"),
            other => {
                serde_json::from_str::<serde::de::IgnoredAny>(other).map_err(|_| "the key is not JSON")?;
                Ok(Cow::Borrowed(other))
            }
        },
        KeyFormat::Int32 => {
            let bytes = key.try_into().map_err(|_| "the key is not 4 bytes (int32)")?;
            Ok(Cow::Owned(i32::from_be_bytes(bytes).to_string()))
        }
        KeyFormat::Int64 => {
            let bytes = key.try_into().map_err(|_| "the key is not 8 bytes (int64)")?;
            Ok(Cow::Owned(i64::from_be_bytes(bytes).to_string()))
        }
        KeyFormat::Bytes => utf8().map(Cow::Borrowed),
    }
}

/// A key in another format. Err: why it cannot be.
pub fn convert(key: &[u8], from: KeyFormat, to: KeyFormat) -> Result<Cow<'_, [u8]>, &'static str> {
    if from == to || to == KeyFormat::Bytes {
        return Ok(Cow::Borrowed(key));
    }
    let text = text(key, from)?;
    Ok(Cow::Owned(match to {
        KeyFormat::Text | KeyFormat::Bytes => text.into_owned().into_bytes(),
        KeyFormat::Json => match from {
            KeyFormat::Int32 | KeyFormat::Int64 => text.into_owned().into_bytes(),
            _ => serde_json::to_vec(&text).map_err(|_| "the key is not text")?,
        },
        KeyFormat::Int32 => text.parse::<i32>().map_err(|_| "the key is no int32")?.to_be_bytes().to_vec(),
        KeyFormat::Int64 => text.parse::<i64>().map_err(|_| "the key is no int64")?.to_be_bytes().to_vec(),
    }))
}

/// Appends a key to a column of `$key` of type `kind`. Err: what it is not.
pub fn read(key: Option<&[u8]>, format: KeyFormat, kind: Type, into: &mut crate::column::ColumnBuilder) -> Result<(), &'static str> {
    let Some(key) = key else {
        into.null();
        return Ok(());
    };
    match kind {
        Type::Text => into.bytes(text(key, format)?.as_bytes()),
        Type::Bytes => into.bytes(key),
        Type::Int => into.int(text(key, format)?.parse().map_err(|_| "the key is no int")?),
        Type::Float => {
            let value: f64 = text(key, format)?.parse().map_err(|_| "the key is no number")?;
            if !value.is_finite() {
                return Err("the key is no number");
            }
            into.float(value);
        }
        Type::Boolean => into.bool(text(key, format)?.parse().map_err(|_| "the key is no boolean")?),
        Type::Json => into.bytes(&convert(key, format, KeyFormat::Json)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_meet_in_text() {
        for (bytes, format) in [
            (&b"3"[..], KeyFormat::Text),
            (b"3", KeyFormat::Json),
            (b"\"3\"", KeyFormat::Json),
            (&[0, 0, 0, 3], KeyFormat::Int32),
            (&[0, 0, 0, 0, 0, 0, 0, 3], KeyFormat::Int64),
        ] {
            assert_eq!(text(bytes, format).unwrap(), "3", "{format:?}");
        }
        assert_eq!(convert(b"3", KeyFormat::Text, KeyFormat::Json).unwrap().as_ref(), b"\"3\"");
        assert_eq!(convert(&[0, 0, 0, 3], KeyFormat::Int32, KeyFormat::Json).unwrap().as_ref(), b"3");
        assert!(text(&[0xff], KeyFormat::Text).is_err());
        assert!(text(b"abc", KeyFormat::Int32).is_err());
    }
}
