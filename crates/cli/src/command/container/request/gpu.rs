//! `--gpus`.

use ponton_api::container::{DeviceRequest, StringMap};

use crate::error::Error;
use crate::value;

pub(super) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// What all `--gpus` ask for.
pub(super) fn requests(given: &[String]) -> Result<Option<Vec<DeviceRequest>>, Error> {
    let requests = given.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>();
    let requests = requests.map_err(Error::Invalid)?;
    Ok((!requests.is_empty()).then_some(requests))
}

/// `all`, `2`, or `device=0,driver=nvidia,capabilities=utility`; a value with commas is quoted with its key.
fn parse(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest { options: Some(StringMap::new()), ..DeviceRequest::default() };
    let mut seen: Vec<String> = Vec::new();
    let fields = value::fields(text)?;
    if fields.is_empty() {
        return Err("EOF".to_owned());
    }
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|before| before == key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        let words = || value.split(',').map(str::to_owned);
        match key {
            "driver" => value.clone_into(&mut request.driver),
            "count" => request.count = count(value)?,
            "device" => request.device_ids = Some(words().collect()),
            "capabilities" => {
                request.capabilities = Some(vec![words().chain(["gpu".to_owned()]).collect()]);
            }
            "options" => {
                let pair = |option: String| {
                    let (name, value) = option.split_once('=').unwrap_or((&option, ""));
                    (name.to_owned(), value.to_owned())
                };
                request.options = Some(value::fields(value)?.into_iter().map(pair).collect());
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request.device_ids.is_none() && !seen.iter().any(|key| key == "count") {
        request.count = 1;
    }
    request.capabilities.get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Ok(request)
}

fn count(text: &str) -> Result<i64, String> {
    match text {
        "all" => Ok(-1),
        _ => text.parse().map_err(|_| {
            format!("invalid count ({text}): value must be either \"all\" or an integer: invalid syntax")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_dockers() {
        let gpu = Some(vec![vec!["gpu".to_owned()]]);
        let request = |count, ids: Option<&[&str]>| DeviceRequest {
            count,
            device_ids: ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()),
            capabilities: gpu.clone(),
            options: Some(StringMap::new()),
            ..DeviceRequest::default()
        };
        assert_eq!(parse("all"), Ok(request(-1, None)));
        assert_eq!(parse("2"), Ok(request(2, None)));
        assert_eq!(parse("driver=").unwrap().count, 1);
        assert_eq!(parse("\"device=0,1\""), Ok(request(0, Some(&["0", "1"]))));
        let whole = parse("driver=nvidia,\"capabilities=utility,compute\",\"options=a=b,c\"").unwrap();
        assert_eq!(whole.driver, "nvidia");
        assert_eq!(whole.capabilities.unwrap(), [["utility", "compute", "gpu"]]);
        assert_eq!(
            whole.options.unwrap().into_iter().collect::<Vec<_>>()[0],
            ("a".to_owned(), "b".to_owned())
        );
        for (text, message) in [
            ("", "EOF"),
            ("nosuch=1", "unexpected key 'nosuch' in 'nosuch=1'"),
            ("count=1,count=2", "gpu request key 'count' can be specified only once"),
            ("foo", "invalid count (foo): value must be either \"all\" or an integer: invalid syntax"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
    }
}
