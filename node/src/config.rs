//! The settings file on disk: where it is, reading it, and the verb `config`.

use std::{
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    cli::{ConfigVerb, Format, Given, ShowArgs},
    client::print,
    exit::{Exit, Failure},
    settings::{self, Layers, Settings, Words, file, show},
};

/// The file with every setting, as `config default` prints it.
pub(crate) const EXAMPLE: &str = include_str!("../perennial.example.toml");

/// Where a machine's settings are.
const SYSTEM_FILE: &str = "/etc/perennial/config.toml";

/// More than the longest lists of known and denied nodes take (2 × 16 384 ids of 64 digits).
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the file that was asked for, else the one that is there, and puts all layers together.
pub(crate) fn load(given: &Given) -> Result<Settings, Failure> {
    let path = given.config.clone().or_else(find);
    let text = path.as_deref().map(read).transpose()?;
    let file = match (&path, &text) {
        (Some(path), Some(text)) => {
            Some(file::File::parse(path, text).map_err(|problems| settings::failure(&problems))?)
        }
        (_, _) => None,
    };
    let layers = Layers { flags: &given.flags, variables: &given.variables, file: file.as_ref() };
    Settings::merge(layers).map_err(|problems| settings::failure(&problems))
}

pub(crate) fn run(verb: &ConfigVerb) -> Result<Exit, Failure> {
    match verb {
        ConfigVerb::Check { file } => check(file.as_deref()),
        ConfigVerb::Show(args) => show(args),
        ConfigVerb::Default => print(EXAMPLE.trim_end()),
    }
}

fn check(file: Option<&Path>) -> Result<Exit, Failure> {
    let asked = env::var_os(crate::cli::CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = file.map(Path::to_owned).or(asked).or_else(find) else {
        return Err(Failure::new(Exit::Config, format!("there is no settings file; {SYSTEM_FILE} would be one")));
    };
    let given = Given { config: Some(path.clone()), flags: Words::new(), variables: Words::new() };
    let settings = load(&given)?;
    // Whose own id it would be is not known here, nor what the variables around it will be.
    let mut problems = settings.builder(None).err().unwrap_or_default();
    problems.extend(settings.otlp(&|_| None).err());
    if !problems.is_empty() {
        return Err(settings::failure(&problems));
    }
    print(&format!("{}: ok", path.display()))
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let settings = load(&args.given)?;
    let entries = settings.all_entries().map_err(|problem| settings::failure(&[problem]))?;
    print(&match args.format {
        Format::Toml => show::to_toml(&entries),
        Format::Json => show::to_json(&entries),
    })
}

/// The first of the usual places that has a file.
fn find() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let of_user = home.map(|home| home.join("perennial/config.toml"));
    of_user.into_iter().chain([PathBuf::from(SYSTEM_FILE)]).find(|path| path.exists())
}

fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::Config, format!("there is no settings file {shown}")),
        io::ErrorKind::InvalidData => Failure::new(Exit::Config, format!("settings file {shown} is no UTF-8 text")),
        _ => Failure::io(format_args!("read settings file {shown}"), error),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let sentence = format!("settings file {shown} has more than {FILE_BYTES_MAX} bytes, the most that is read");
        return Err(Failure::new(Exit::Config, sentence));
    }
    Ok(text)
}
