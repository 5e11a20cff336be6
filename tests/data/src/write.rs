//! Loans as a Parquet file.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::{Context, Result};
use arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    },
    compute::cast,
    datatypes::{DataType, TimeUnit},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

use crate::loan::Loan;

pub(crate) fn write(path: &Path, loans: &[Loan]) -> Result<()> {
    let batch = batch(loans)?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = File::create(path).with_context(|| format!("cannot write {}: check --out", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn batch(loans: &[Loan]) -> Result<RecordBatch> {
    let numbers = |get: fn(&Loan) -> f64| -> ArrayRef {
        Arc::new(loans.iter().map(|l| Some(get(l))).collect::<Float64Array>())
    };
    let texts = |get: fn(&Loan) -> &str| -> ArrayRef {
        Arc::new(loans.iter().map(|l| Some(get(l))).collect::<StringArray>())
    };
    let truths = |get: fn(&Loan) -> bool| -> ArrayRef {
        Arc::new(loans.iter().map(|l| Some(get(l))).collect::<BooleanArray>())
    };
    let times = cast(&texts(|l| &l.timestamp), &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    let times: TimestampMillisecondArray = times.to_data().into();
    Ok(RecordBatch::try_from_iter([
        ("id", Arc::new(loans.iter().map(|l| l.id).collect::<Int64Array>()) as ArrayRef),
        ("timestamp", Arc::new(times)),
        ("car_value", numbers(|l| l.car_value)),
        ("salary_range", texts(|l| &l.salary_range)),
        ("debt_to_income_ratio", numbers(|l| l.debt_to_income_ratio)),
        ("loan_length", numbers(|l| l.loan_length)),
        ("repaid_loan_on_prev_car", truths(|l| l.repaid_loan_on_prev_car)),
        ("size_of_downpayment", texts(|l| &l.size_of_downpayment)),
        ("driver_tenure", numbers(|l| l.driver_tenure)),
        ("repaid", Arc::new(loans.iter().map(|l| i64::from(l.repaid)).collect::<Int64Array>())),
    ])?)
}
