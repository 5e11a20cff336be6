//! Loans as the CSV files have them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use csv::{Reader, StringRecord};

const FOLDER: &str = "nannyml/datasets/data";
const COUNT: usize = 100_000;

/// One loan. NannyML's own predictions are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Loan {
    /// Number of the loan, in order of time.
    pub id: i64,
    /// Value of the car, in euros.
    pub car_value: f64,
    /// Salary, as one of four ranges.
    pub salary_range: String,
    /// Monthly debts by monthly income.
    pub debt_to_income_ratio: f64,
    /// Length of the loan in months.
    pub loan_length: f64,
    /// Whether an earlier loan was repaid.
    pub repaid_loan_on_prev_car: bool,
    /// Down payment, as one of five shares such as `20%`.
    pub size_of_downpayment: String,
    /// Years with the employer.
    pub driver_tenure: f64,
    /// Whether the loan was repaid: what is to be predicted.
    pub repaid: bool,
    /// When it was given, as `2018-01-01 00:00:00.000`.
    pub timestamp: String,
}

/// All loans, in order of time.
pub(crate) fn read(source: &Path) -> Result<Vec<Loan>> {
    let mut loans = Vec::with_capacity(COUNT);
    for record in records(source, "synthetic_car_loan_reference.csv")? {
        loans.push(record.loan(record.text("repaid")?)?);
    }
    let later = records(source, "synthetic_car_loan_analysis.csv")?;
    let answers = records(source, "synthetic_car_loan_analysis_target.csv")?;
    for (record, answer) in later.iter().zip(&answers) {
        ensure!(
            record.text("id")? == answer.text("id")?,
            "the target file is for other loans: unpack the wheel again"
        );
        loans.push(record.loan(answer.text("repaid")?)?);
    }
    ensure!(loans.len() == COUNT, "{} loans instead of {COUNT}: unpack the wheel again", loans.len());
    Ok(loans)
}

fn records(source: &Path, name: &str) -> Result<Vec<Record>> {
    let inside = source.join(FOLDER).join(name);
    let path: PathBuf = if inside.exists() { inside } else { source.join(name) };
    let hint = || {
        format!(
            "cannot read {}: give the folder into which the wheel of nannyml was unpacked",
            path.display()
        )
    };
    let mut reader = Reader::from_path(&path).with_context(hint)?;
    let names = reader.headers().with_context(hint)?.clone();
    let record = |values: csv::Result<StringRecord>| Ok(Record { names: names.clone(), values: values? });
    reader.records().map(record).collect()
}

struct Record {
    names: StringRecord,
    values: StringRecord,
}

impl Record {
    fn text(&self, name: &str) -> Result<&str> {
        let place = self.names.iter().position(|other| other == name);
        place.and_then(|place| self.values.get(place)).with_context(|| format!("there is no column {name}"))
    }

    fn number(&self, name: &str) -> Result<f64> {
        let text = self.text(name)?;
        text.parse().with_context(|| format!("{name} is {text}, which is no number"))
    }

    fn loan(&self, repaid: &str) -> Result<Loan> {
        Ok(Loan {
            id: self.text("id")?.parse()?,
            car_value: self.number("car_value")?,
            salary_range: self.text("salary_range")?.to_owned(),
            debt_to_income_ratio: self.number("debt_to_income_ratio")?,
            loan_length: self.number("loan_length")?,
            repaid_loan_on_prev_car: self.text("repaid_loan_on_prev_car")? == "True",
            size_of_downpayment: self.text("size_of_downpayment")?.to_owned(),
            driver_tenure: self.number("driver_tenure")?,
            repaid: repaid.parse::<f64>()? > 0.5,
            timestamp: self.text("timestamp")?.to_owned(),
        })
    }
}
