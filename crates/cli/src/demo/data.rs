//! The flights that come with the program: all that left New York City's airports in 2013.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use recache_store::Leg;
use serde::Deserialize;

/// Part of the binary, so that an installed one needs no files beside it.
const FLIGHTS: &[u8] = include_bytes!("../../../../examples/data/nycflights13/flights.csv.gz");
const AIRLINES: &[u8] = include_bytes!("../../../../examples/data/nycflights13/airlines.csv");

#[derive(Debug, Deserialize)]
struct FlightRow {
    carrier: String,
    dest: String,
    arr_delay: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct AirlineRow {
    carrier: String,
    name: String,
}

/// Every flight, in the order of the file.
pub(super) fn flights() -> Result<Vec<Leg>, csv::Error> {
    legs(GzDecoder::new(FLIGHTS))
}

fn legs(text: impl Read) -> Result<Vec<Leg>, csv::Error> {
    csv::Reader::from_reader(text)
        .into_deserialize()
        .map(|row| {
            let FlightRow { carrier, dest, arr_delay } = row?;
            Ok(Leg { carrier, dest, arr_delay })
        })
        .collect()
}

/// Code and name of every carrier.
pub(super) fn airlines() -> Result<BTreeMap<String, String>, csv::Error> {
    csv::Reader::from_reader(AIRLINES)
        .into_deserialize()
        .map(|row| {
            let AirlineRow { carrier, name } = row?;
            Ok((carrier, name))
        })
        .collect()
}

/// Day, counted from 0 at New Year, and destination of the flights of the first days, in the order of the file.
pub(crate) fn departures(days: u32) -> Result<Vec<(u32, String)>, csv::Error> {
    #[derive(Debug, Deserialize)]
    struct Row {
        month: u32,
        day: u32,
        dest: String,
    }
    let mut departures = Vec::new();
    // Sorted by day within the year: January comes first.
    for row in csv::Reader::from_reader(GzDecoder::new(FLIGHTS)).into_deserialize() {
        let Row { month, day, dest } = row?;
        if month == 1 && day <= days {
            departures.push((day - 1, dest));
        }
    }
    Ok(departures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_records_are_there_and_an_empty_delay_is_none() {
        let legs = flights().unwrap();
        assert_eq!(legs.len(), 336_776);
        assert_eq!(legs[0], Leg { carrier: "UA".to_owned(), dest: "IAH".to_owned(), arr_delay: Some(11) });
        assert_eq!(legs.iter().filter(|leg| leg.arr_delay.is_none()).count(), 9_430);
        assert_eq!(airlines().unwrap().len(), 16);
    }
}
