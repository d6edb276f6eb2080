//! CEL's conversion functions: `int()`, `double()`, `string()`, `bool()`.

use crate::fault::Fault;
use crate::kind::Kind;
use crate::scalar::Scalar;

pub fn to(kind: Kind, value: &Scalar<'_>) -> Result<Scalar<'static>, Fault> {
    match (kind, value) {
        (_, Scalar::Null) => Err(Fault::NullOperand),
        (Kind::Int, Scalar::Int(value)) => Ok(Scalar::Int(*value)),
        (Kind::Int, Scalar::Double(value)) => int(*value).map(Scalar::Int),
        (Kind::Int, Scalar::Text(text)) => text.parse().map(Scalar::Int).map_err(|_| Fault::Conversion),
        (Kind::Double, Scalar::Double(value)) => Ok(Scalar::Double(*value)),
        (Kind::Double, Scalar::Int(value)) => Ok(Scalar::Double(*value as f64)),
        (Kind::Double, Scalar::Text(text)) => text.parse().map(Scalar::Double).map_err(|_| Fault::Conversion),
        (Kind::Text, Scalar::Text(text)) => Ok(Scalar::Text(text.clone().into_owned().into())),
        (Kind::Text, Scalar::Bool(value)) => Ok(Scalar::Text(value.to_string().into())),
        (Kind::Text, Scalar::Int(value)) => Ok(Scalar::Text(value.to_string().into())),
        (Kind::Text, Scalar::Double(value)) => Ok(Scalar::Text(value.to_string().into())),
        (Kind::Text, Scalar::Bytes(bytes)) => {
            std::str::from_utf8(bytes).map(|text| Scalar::Text(text.to_owned().into())).map_err(|_| Fault::Conversion)
        }
        (Kind::Bool, Scalar::Bool(value)) => Ok(Scalar::Bool(*value)),
        (Kind::Bool, Scalar::Text(text)) => match text.as_ref() {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Scalar::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Scalar::Bool(false)),
            _ => Err(Fault::Conversion),
        },
        _ => Err(Fault::WrongType),
    }
}

/// Towards zero; the bounds are exclusive, since 2^63 is no int but the nearest double of the largest one.
fn int(value: f64) -> Result<i64, Fault> {
    if value > i64::MIN as f64 && value < i64::MAX as f64 { Ok(value as i64) } else { Err(Fault::Conversion) }
}
