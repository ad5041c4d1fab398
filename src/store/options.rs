//! How `RocksDB` is set up, and why.

use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

/// Block cache shared by all column families, in bytes: most of what the idle process holds.
const BLOCK_CACHE: usize = 24 * 1024 * 1024;
/// All memtables together, in bytes.
const MEMTABLES: usize = 64 * 1024 * 1024;
/// Payloads from this size on go to blob files.
const BLOB_FROM: u64 = 4 * 1024;

/// What opening makes of a write-ahead log that does not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// A last record that was cut off, and zeros, end the log. Anything else is damage, and is refused.
    Whole,
    /// The log ends before the first record that does not read, whatever comes behind it. For opening to write, only
    /// once it was seen that nothing acknowledged is behind it: it is gone then.
    Torn,
}

/// Options of the whole database. No WAL compression or recycling: recovery then rejects valid logs.
pub(super) fn database(tail: Tail) -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(match tail {
        Tail::Whole => DBRecoveryMode::TolerateCorruptedTailRecords,
        Tail::Torn => DBRecoveryMode::PointInTime,
    });
    options.set_track_and_verify_wals_in_manifest(true);
    super::shim::protect(&mut options);
    options.set_recycle_log_file_num(0);
    // What an opening after a crash has to replay.
    options.set_max_total_wal_size(96 * 1024 * 1024);
    options.set_db_write_buffer_size(MEMTABLES);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_max_open_files(512);
    options.set_keep_log_file_num(4);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

/// Options of each column family.
pub(super) fn families(names: &[&str]) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE);
    names.iter().map(|name| ColumnFamilyDescriptor::new(*name, family(name, &cache))).collect()
}

fn family(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_format_version(6);
    table.set_checksum_type(ChecksumType::XXH3);
    table.set_block_size(16 * 1024);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(16 * 1024 * 1024);
    match name {
        super::DEDUP => {
            // Nearly every look-up is of a hash that is not there.
            table.set_bloom_filter(10.0, false);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.1);
            options.set_compression_type(DBCompressionType::None);
        }
        super::TILES => options.set_compression_type(DBCompressionType::None),
        super::PAYLOADS => {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_FROM);
            options.set_blob_compression_type(DBCompressionType::Lz4);
            options.set_enable_blob_gc(false);
        }
        _ => {}
    }
    options.set_block_based_table_factory(&table);
    options
}
