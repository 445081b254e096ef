//! Where a consumer begins: `beginning`, `end`, an offset, or a time.

/// A place in every partition asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    End,
    Offset(i64),
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

/// Reads `beginning`, `end`, `4711`, `@1767225600000` (milliseconds since 1970) or `2026-01-01T00:00:00Z`.
pub(crate) fn from(text: &str) -> Result<From, String> {
    match text {
        "beginning" => return Ok(From::Beginning),
        "end" => return Ok(From::End),
        _ => {}
    }
    let millis = text.strip_prefix('@').map(|millis| millis.parse().ok().filter(|ms| *ms >= 0).map(From::Time));
    let offset = text.parse().ok().filter(|offset| *offset >= 0).map(From::Offset);
    millis.unwrap_or(offset).or_else(|| rfc3339(text).map(From::Time)).ok_or_else(|| {
        format!("`{text}` is no place to begin: it must be beginning, end, an offset, a time like 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970")
    })
}

/// Milliseconds since 1970 of a date and time with an offset from UTC, which must be given: guessing a time zone would
/// begin somewhere else on another machine.
fn rfc3339(text: &str) -> Option<i64> {
    use toml::value::Offset;
    let parsed: toml::value::Datetime = text.parse().ok()?;
    let (date, time, offset) = (parsed.date?, parsed.time?, parsed.offset?);
    let minutes_east = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute) - minutes_east;
    let second = i64::from(time.second.unwrap_or(0));
    Some((minutes * 60 + second) * 1000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000))
}

/// Days of the Gregorian calendar, counted in years that begin in March so that a leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(from("beginning"), Ok(From::Beginning));
        assert_eq!(from("end"), Ok(From::End));
        assert_eq!(from("0"), Ok(From::Offset(0)));
        assert_eq!(from("@1700000000123"), Ok(From::Time(1_700_000_000_123)));
    }

    #[test]
    fn times_as_the_date_command_has_them() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2026-01-31T12:00:00.25Z", 1_769_860_800_250),
            ("2026-01-31T12:00:00+02:00", 1_769_853_600_000),
            ("2026-01-31 12:00:00-00:30", 1_769_862_600_000),
            ("1969-12-31T23:59:59Z", -1_000),
        ];
        for (text, millis) in cases {
            assert_eq!(from(text), Ok(From::Time(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_explained() {
        for text in
            ["", "start", "-1", "@", "@-1", "@x", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", "1e3"]
        {
            assert!(from(text).unwrap_err().contains("no place to begin"), "{text}");
        }
    }
}
