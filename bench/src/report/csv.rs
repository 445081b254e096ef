//! A report for spreadsheets: a row for each run of each figure (RFC 4180).

use super::{Figure, Report};

/// One row per figure and run; the limits come first, with an empty case.
pub fn to_csv(report: &Report) -> String {
    let mut text = String::from("case,subject,load,figure,unit,run,value\n");
    for figure in &report.limits {
        rows(&mut text, ["", "machine", ""], figure);
    }
    for measured in &report.results {
        for figure in &measured.figures {
            rows(&mut text, [&measured.case, &measured.subject, &measured.load], figure);
        }
    }
    text
}

fn rows(text: &mut String, of: [&str; 3], figure: &Figure) {
    let head: Vec<_> = of.iter().chain(&[&*figure.name, &*figure.unit]).map(|cell| field(cell)).collect();
    let head = head.join(",");
    text.push_str(&format!("{head},all,{}\n", figure.value));
    for (run, value) in figure.runs.iter().enumerate() {
        text.push_str(&format!("{head},{run},{value}\n"));
    }
}

fn field(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.into() }
}

#[cfg(test)]
mod tests {
    use super::super::{Better, Machine, Measured};
    use super::*;

    #[test]
    fn every_run_has_a_row_and_commas_are_quoted() {
        let mut report = Report::new(Machine::default());
        let mut measured = Measured::new("produce", "corelog", "64 producers, \"closed\"");
        measured.figure("records", "1/s", Better::Higher, vec![1.0, 2.5]);
        report.results.push(measured);
        let expected = "case,subject,load,figure,unit,run,value\n\
            produce,corelog,\"64 producers, \"\"closed\"\"\",records,1/s,all,1.75\n\
            produce,corelog,\"64 producers, \"\"closed\"\"\",records,1/s,0,1\n\
            produce,corelog,\"64 producers, \"\"closed\"\"\",records,1/s,1,2.5\n";
        assert_eq!(to_csv(&report), expected);
    }
}
