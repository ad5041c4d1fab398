//! How a directory of keys changes once it is made: keys are added, and the one key that may live elsewhere goes and comes.
//!
//! Always files first, then the manifest that names them, by a rename. A crash before the rename leaves files that no
//! manifest knows of: the keys are as they were, and the next change removes what lies in its way. One process at a time
//! changes a directory (a lock on it, which ends with the process); whoever reads needs none, as the rename is one step.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use zeroize::Zeroizing;

use super::{Generation, MANIFEST, NEW_MANIFEST, Successor, Vault, io, log_role, sync_dir};
use crate::keys::{Kek, KeyError, seal};

/// A key to add: its role, PKCS#8, and what is public about it.
pub(in crate::keys) struct NewKey {
    pub(in crate::keys) role: String,
    pub(in crate::keys) secret: Zeroizing<Vec<u8>>,
    /// `CERTIFICATE` or `PUBLIC KEY`.
    pub(in crate::keys) label: &'static str,
    /// DER.
    pub(in crate::keys) public: Vec<u8>,
}

impl<'kek> Vault<'kek> {
    /// Opens `dir/keys` to change it, when nobody else does.
    pub(in crate::keys) fn open_to_change(dir: &Path, kek: &'kek Kek) -> Result<Self, KeyError> {
        let keys = dir.join("keys");
        let lock = match File::open(&keys) {
            Ok(directory) => {
                directory.lock().map_err(|source| io("lock", &keys, source))?;
                Some(directory)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(io("open", &keys, source)),
        };
        Ok(Self { _lock: lock, ..Self::open(dir, kek)? })
    }

    /// Adds the key of a log that succeeds the present one.
    pub(in crate::keys) fn add_log(&mut self, log: Successor, secret: &[u8], spki: &[u8]) -> Result<(), KeyError> {
        let role = log_role(self.manifest.logs.len() + 1);
        let secret = Zeroizing::new(secret.to_vec());
        self.put_new(&[NewKey { role, secret, label: "PUBLIC KEY", public: spki.to_vec() }])?;
        self.manifest.logs.push(log);
        self.write_manifest()
    }

    /// Adds the keys of a generation; with none given, keys that come to a directory of an older version.
    pub(in crate::keys) fn add(&mut self, keys: &[NewKey], generation: Option<Generation>) -> Result<(), KeyError> {
        self.put_new(keys)?;
        self.manifest.generations.extend(generation);
        self.write_manifest()
    }

    /// Drops the key files of these roles; what is public about them stays. Those of a change that did not end go too.
    pub(in crate::keys) fn remove_keys(&mut self, roles: &[String]) -> Result<(), KeyError> {
        let names: Vec<String> = roles.iter().map(|role| format!("{role}.key")).collect();
        self.remove_left(NEW_MANIFEST)?;
        for name in &names {
            self.manifest.files.remove(name);
        }
        self.write_manifest()?;
        // A crash here leaves a file that no manifest names.
        names.iter().try_for_each(|name| self.remove_left(name))?;
        sync_dir(&self.dir)
    }

    /// Takes back sealed keys that [`Self::remove_keys`] dropped. Each must open in its role.
    pub(in crate::keys) fn put_back(&mut self, sealed: &[(String, Vec<u8>)]) -> Result<(), KeyError> {
        self.remove_left(NEW_MANIFEST)?;
        for (role, bytes) in sealed {
            seal::open(self.kek()?, role, bytes)?.ok_or_else(|| self.damaged(role, "cannot be unsealed"))?;
            let name = format!("{role}.key");
            self.remove_left(&name)?;
            self.put(name, bytes)?;
        }
        self.write_manifest()
    }

    /// The sealed file of a role, as it is on the disk.
    pub(in crate::keys) fn sealed(&self, role: &str) -> Result<Vec<u8>, KeyError> {
        self.read(&format!("{role}.key"))
    }

    fn put_new(&mut self, keys: &[NewKey]) -> Result<(), KeyError> {
        self.remove_left(NEW_MANIFEST)?;
        for NewKey { role, secret, label, public } in keys {
            self.remove_left(&format!("{role}.key"))?;
            self.remove_left(&format!("{role}.pem"))?;
            self.put_key(role, secret)?;
            self.put_public(role, label, public)?;
        }
        Ok(())
    }

    /// Removes a file that no manifest names: left by a change that did not end.
    fn remove_left(&self, name: &str) -> Result<(), KeyError> {
        let path = self.dir.join(name);
        if self.has(name) || name == MANIFEST {
            return Err(KeyError::Damaged { path, problem: "is in the manifest, and a new key would replace it" });
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", &path, error)),
            _ => Ok(()),
        }
    }
}
