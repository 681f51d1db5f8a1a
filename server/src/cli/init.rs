//! What an operator begins with: a configuration file, a unit for systemd, and what shells and `man` want.

use super::Cli;
use clap::{Args, CommandFactory};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Write a commented configuration file and a unit for systemd.
#[derive(Args)]
pub(super) struct Init {
    /// The directory for both files; created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The node's id in its cluster
    #[arg(long, default_value_t = 1)]
    id: u64,
    /// Where the other nodes reach it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7100")]
    peer_addr: String,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6400")]
    client_addr: String,
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/coracle")]
    data_dir: PathBuf,
    /// A client address of the cluster that it joins, if there is one
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
}

/// Print what a shell needs to complete this program's command lines.
#[derive(Args)]
pub(super) struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Write this program's manual pages.
#[derive(Args)]
pub(super) struct Man {
    /// The directory for them; created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Init {
    pub(super) fn run(self) -> Result<(), String> {
        let made = fs::create_dir_all(&self.directory);
        made.map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let configuration = self.directory.join("coracle.toml");
        let unit = self.directory.join("coracle.service");
        let full = fs::canonicalize(&self.directory).unwrap_or_else(|_| self.directory.clone());
        write_new(&configuration, &self.configuration())?;
        write_new(&unit, &self.unit(&full.join("coracle.toml")))?;
        println!("wrote {} and {}", configuration.display(), unit.display());
        println!("start it by hand:    coracle serve --config {}", configuration.display());
        println!(
            "or under systemd:    cp {} /etc/systemd/system/ && systemctl enable --now coracle",
            unit.display()
        );
        match &self.join {
            None => {
                println!(
                    "make it a cluster:   coracle members init --to {} {}={}",
                    self.client_addr, self.id, self.peer_addr
                );
                println!(
                    "another node joins:  coracle init DIR --id {} --join {} …",
                    self.id + 1,
                    self.client_addr
                );
            }
            Some(join) => println!("it joins by itself; to see that:  coracle status --to {join}"),
        }
        Ok(())
    }

    /// Every setting with what it is for; those that have to be set are.
    fn configuration(&self) -> String {
        let mut text = "# A node of Coracle: coracle serve --config FILE. To check it: coracle config check FILE.\n\
                        # Flags and the environment (CORACLE_TIMEOUT for timeout) come before what stands here.\n"
            .to_owned();
        let command = Cli::command();
        let Some(serve) = command.find_subcommand("serve") else { return text };
        for flag in serve.get_arguments().filter(|flag| !flag.is_hide_set()) {
            let Some(name) = flag.get_long().filter(|name| !["config", "join-token"].contains(name)) else {
                continue;
            };
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            text += &format!("\n# {}\n", help.replace('\n', " "));
            let quoted = |value: &str| toml_edit::value(value).to_string();
            let set = match name {
                "id" => Some(self.id.to_string()),
                "peer-addr" => Some(quoted(&self.peer_addr)),
                "client-addr" => Some(quoted(&self.client_addr)),
                "data-dir" => Some(quoted(&self.data_dir.to_string_lossy())),
                "join" => self.join.as_ref().map(|join| format!("[{}]", quoted(join).trim())),
                _ => None,
            };
            let default = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
            text += &match (set, default) {
                (Some(value), _) => format!("{name} = {}\n", value.trim()),
                (None, Some(value)) if value == "false" => format!("# {name} = false\n"),
                (None, Some(value)) => format!("# {name} = {}\n", quoted(&value).trim()),
                (None, None) => format!("# {name} =\n"),
            };
        }
        text
    }

    /// The unit. The program is wherever this one is.
    fn unit(&self, configuration: &Path) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/coracle".into());
        format!(
            "[Unit]\n\
             Description=Coracle, a replicated key-value store\n\
             Documentation=man:coracle(1)\n\
             After=network-online.target\n\
             Wants=network-online.target\n\
             \n\
             [Service]\n\
             Type=notify\n\
             ExecStart={program} serve --config {configuration}\n\
             ExecReload=kill -HUP $MAINPID\n\
             # It hands its leadership over, and finishes what is under way.\n\
             TimeoutStopSec=30\n\
             # A log may be long to read after a start.\n\
             TimeoutStartSec=infinity\n\
             WatchdogSec=30\n\
             Restart=on-failure\n\
             RestartSec=1\n\
             LimitNOFILE=65536\n\
             DynamicUser=yes\n\
             StateDirectory=coracle\n\
             StateDirectoryMode=0700\n\
             ReadWritePaths={data}\n\
             ProtectSystem=strict\n\
             ProtectHome=yes\n\
             PrivateTmp=yes\n\
             PrivateDevices=yes\n\
             ProtectKernelTunables=yes\n\
             ProtectKernelModules=yes\n\
             ProtectControlGroups=yes\n\
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
             RestrictNamespaces=yes\n\
             LockPersonality=yes\n\
             NoNewPrivileges=yes\n\
             CapabilityBoundingSet=\n\
             SystemCallFilter=@system-service\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            program = program.display(),
            configuration = configuration.display(),
            data = self.data_dir.display(),
        )
    }
}

impl Completions {
    pub(super) fn run(self) -> Result<(), String> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "coracle", &mut text);
        io::stdout().write_all(&text).map_err(|error| format!("cannot print: {error}"))
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), String> {
        let told = |error: io::Error| format!("{}: {error}", self.directory.display());
        fs::create_dir_all(&self.directory).map_err(told)?;
        clap_mangen::generate_to(Cli::command(), &self.directory).map_err(told)?;
        println!("wrote the pages to {}", self.directory.display());
        Ok(())
    }
}

/// Overwrites nothing.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{}: it exists, and is not overwritten", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(told)?;
    file.write_all(text.as_bytes()).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_file_that_was_written_is_right_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let init = |join: Option<&str>| Init {
            directory: directory.path().join("conf"),
            id: 7,
            peer_addr: "127.0.0.1:7".to_owned(),
            client_addr: "127.0.0.1:8".to_owned(),
            data_dir: directory.path().join("data"),
            join: join.map(str::to_owned),
        };
        init(Some("127.0.0.1:9")).run().unwrap();
        let file = directory.path().join("conf/coracle.toml");
        super::super::Configuration::Check { file: file.clone() }.run().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for line in ["id = 7", "join = [\"127.0.0.1:9\"]", "# timeout = \"2s\"", "# max-memory ="] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
        assert!(!text.contains("join-token ="), "a secret has a file of its own");
        let unit = fs::read_to_string(directory.path().join("conf/coracle.service")).unwrap();
        assert!(
            unit.contains("Type=notify\n") && unit.contains(&format!("--config {}", file.display())),
            "{unit}"
        );
        assert!(init(None).run().unwrap_err().contains("is not overwritten"));
    }

    #[test]
    fn every_shell_and_every_command_has_its_help() {
        for shell in clap_complete::Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "coracle", &mut text);
            assert!(String::from_utf8(text).unwrap().contains("max-memory"), "{shell}");
        }
        let directory = tempfile::tempdir().unwrap();
        Man { directory: directory.path().to_owned() }.run().unwrap();
        let pages = fs::read_dir(directory.path()).unwrap().count();
        assert!(pages > Cli::command().get_subcommands().count(), "{pages}");
        assert!(
            fs::read_to_string(directory.path().join("coracle-serve.1")).unwrap().contains("max\\-memory")
        );
    }
}
