//! The PKCS#11 modules of this process. A module is initialised for the whole process at once (PKCS#11 §5.4) and never
//! unloaded: whoever opens the same path again gets the same one. It is code that runs inside of us, so its path comes from
//! the configuration alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use crate::keys::KeyError;

/// By path; one entry for each module that was ever opened.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// The module at `path`, loaded and initialised.
pub(super) fn load(path: &Path) -> Result<Pkcs11, KeyError> {
    let refuse = |problem: String| KeyError::Module { path: path.to_owned(), problem };
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = modules.get(path) {
        return Ok(known.clone());
    }
    if !path.is_absolute() {
        return Err(refuse("is not an absolute path; write the whole path of the module".to_owned()));
    }
    if !path.is_file() {
        return Err(refuse("is not there; name the module's file, such as .../libsofthsm2.so".to_owned()));
    }
    let module = Pkcs11::new(path).map_err(|error| refuse(format!("cannot be loaded: {error}")))?;
    initialise(&module).map_err(|error| refuse(format!("cannot be initialised: {error}")))?;
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

fn initialise(module: &Pkcs11) -> Result<(), Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets the module begin anew: some look for tokens only then. Every session with it ends.
pub(super) fn restart(module: &Pkcs11) -> Result<(), Error> {
    match module.clone().finalize() {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
        Err(error) => return Err(error),
    }
    initialise(module)
}
