//! Container images made of what is on this machine: no registry is asked.
//!
//! An image is a tar file of a manifest, a configuration and one layer, which is a tar file itself.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::json;

use super::{
    folder::{Folder, make},
    namespaces::Namespaces,
    node::PAUSE_IMAGE,
};
use crate::command::{exists, output, program, root, run};

/// A shell and its tools, for applications.
const SHELL_IMAGE: &str = "heddle.dev/shell:test";
/// A server of gRPC with its health service: etcd, among the other components.
const COMPONENTS_IMAGE: &str = "heddle.dev/components:test";
/// Heddle as it was built.
pub(super) const HEDDLE_IMAGE: &str = "heddle.dev/heddle:dev";
/// The same with the machine's legacy iptables, for init containers on nodes without nftables.
const IPTABLES_IMAGE: &str = "heddle.dev/heddle-iptables:dev";
/// The program that is all of legacy iptables, by the name that it is called by.
const IPTABLES: &str = "/usr/sbin/xtables-legacy-multi";
/// What `heddle init` calls it by.
const IPTABLES_NAMES: [&str; 4] = [
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
];
/// Users an image knows by name: of the control plane and of sidecars.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nheddle:x:1337:1337:heddle:/:/bin/false\nnonroot:x:65532:65532:nonroot:/:/bin/false\n";
/// The same for groups.
const GROUP: &str = "root:x:0:\nheddle:x:1337:\nnonroot:x:65532:\n";
/// Who an application is: nobody in particular, and not a sidecar.
const APPLICATION_USER: &str = "1338:1338";
/// Authorities that are believed by default.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image while it is made.
#[derive(Debug)]
struct Image {
    name: String,
    entrypoint: &'static [&'static str],
    user: &'static str,
    /// Where it is put together.
    folder: PathBuf,
}

/// Makes and loads what clusters come with.
pub(super) fn load_own(folder: &Folder, namespaces: &Namespaces) -> Result<(), String> {
    let pause = Image::new(folder, PAUSE_IMAGE, &["/bin/busybox", "sleep", "2147483647"], "65535")?;
    pause.add(Path::new("/bin/busybox"), "bin/busybox")?;
    pause.load(namespaces)?;
    let shell = Image::new(folder, SHELL_IMAGE, &[], "0")?;
    shell.add(Path::new("/bin/busybox"), "bin/busybox")?;
    for tool in
        output(&mut program("/bin/busybox", &["--list"]))?.lines().filter(|t| *t != "busybox")
    {
        let link = shell.layer().join("bin").join(tool);
        symlink("busybox", &link).map_err(|e| format!("{}: {e}", link.display()))?;
    }
    shell.load(namespaces)?;
    let components = Image::new(folder, COMPONENTS_IMAGE, &["/bin/kube"], "0")?;
    components.add(&folder.at("bin/kube"), "bin/kube")?;
    components.load(namespaces)
}

/// Makes an image of a built `heddle`, with the libraries it needs, and loads it.
///
/// # Errors
/// There is no such file or no cluster.
pub(super) fn load_heddle(folder: &Folder, binary: &str) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    let binary = root().join(binary);
    if !binary.is_file() {
        return Err(format!("{} is not there: cargo build --release -p heddle", binary.display()));
    }
    heddle(folder, HEDDLE_IMAGE, &binary)?.load(&namespaces)?;
    let image = heddle(folder, IPTABLES_IMAGE, &binary)?;
    add_iptables(&image)?;
    image.load(&namespaces)
}

fn heddle(folder: &Folder, name: &str, binary: &Path) -> Result<Image, String> {
    let image = Image::new(folder, name, &["/usr/local/bin/heddle"], "65532:65532")?;
    image.add(binary, "usr/local/bin/heddle")?;
    if exists("strip") {
        run(&mut program(
            "strip",
            &[&image.layer().join("usr/local/bin/heddle").to_string_lossy()],
        ))?;
    }
    image.add_libraries(binary)?;
    if Path::new(AUTHORITIES).is_file() {
        image.add(Path::new(AUTHORITIES), AUTHORITIES.trim_start_matches('/'))?;
    }
    Ok(image)
}

/// The program, what it is linked to, and its matches and targets, which it loads by name.
fn add_iptables(image: &Image) -> Result<(), String> {
    let program = Path::new(IPTABLES);
    image.add(program, "usr/bin/xtables-legacy-multi")?;
    for name in IPTABLES_NAMES {
        let link = image.layer().join("usr/bin").join(name);
        symlink("xtables-legacy-multi", &link).map_err(|e| format!("{}: {e}", link.display()))?;
    }
    image.add_libraries(program)?;
    let libraries = libraries(program)?;
    let own = libraries.iter().find(|library| library.to_string_lossy().contains("libxtables"));
    let own = own.and_then(|library| fs::canonicalize(library).ok());
    let folder = own.as_deref().and_then(Path::parent).map(|folder| folder.join("xtables"));
    let folder = folder.ok_or_else(|| format!("{IPTABLES} has no folder of extensions"))?;
    let told = |e: io::Error| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(&folder).map_err(told)? {
        let file = entry.map_err(told)?.path();
        image.add(&file, file.to_string_lossy().trim_start_matches('/'))?;
    }
    Ok(())
}

/// Makes an image of an application that needs no library, and loads it: `files` with where they are in it.
///
/// # Errors
/// A file is not there, or there is no cluster.
pub(super) fn load_application(
    folder: &Folder,
    name: &str,
    entrypoint: &'static [&'static str],
    files: &[(&Path, &str)],
) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    let image = Image::new(folder, name, entrypoint, APPLICATION_USER)?;
    for (file, at) in files {
        image.add(file, at)?;
    }
    image.load(&namespaces)
}

/// The libraries a program is linked with, and its loader; none for a static one.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>, String> {
    let asked = program("ldd", &[&binary.to_string_lossy()]).stderr(Stdio::null()).output();
    let asked = asked.map_err(|e| format!("ldd: {e}"))?;
    let text = String::from_utf8_lossy(&asked.stdout);
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

impl Image {
    /// An image with nothing in it but users and a folder for temporary files.
    fn new(
        folder: &Folder,
        name: &str,
        entrypoint: &'static [&'static str],
        user: &'static str,
    ) -> Result<Self, String> {
        let own = folder.at("images").join(name.replace(['/', ':'], "-"));
        drop(fs::remove_dir_all(&own));
        let image = Self { name: name.to_owned(), entrypoint, user, folder: own };
        make(&image.layer().join("etc"))?;
        make(&image.layer().join("tmp"))?;
        let shared = fs::Permissions::from_mode(0o1777);
        let write = |part: &str, text: &str| fs::write(image.layer().join(part), text);
        write("etc/passwd", PASSWD)
            .and_then(|()| write("etc/group", GROUP))
            .and_then(|()| fs::set_permissions(image.layer().join("tmp"), shared))
            .map_err(|e| format!("image {name}: {e}"))?;
        Ok(image)
    }

    fn layer(&self) -> PathBuf {
        self.folder.join("layer")
    }

    /// Puts a file of the machine into it; of a link, what it leads to.
    fn add(&self, file: &Path, at: &str) -> Result<(), String> {
        let to = self.layer().join(at);
        make(to.parent().unwrap_or(&self.folder))?;
        fs::copy(file, &to)
            .map(drop)
            .map_err(|e| format!("{} to {}: {e}", file.display(), to.display()))
    }

    /// Puts the libraries of a program into it, where they are on the machine.
    fn add_libraries(&self, program: &Path) -> Result<(), String> {
        for library in libraries(program)? {
            self.add(&library, library.to_string_lossy().trim_start_matches('/'))?;
        }
        Ok(())
    }

    /// Writes it as one file and has containerd read that.
    fn load(&self, namespaces: &Namespaces) -> Result<(), String> {
        let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0"];
        let tar = |arguments: &[&str]| {
            run(program("tar", &owner).args(arguments).current_dir(&self.folder))
        };
        tar(&["-C", "layer", "-cf", "layer.tar", "."])?;
        let sum = output(program("sha256sum", &["layer.tar"]).current_dir(&self.folder))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let machine = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": machine, "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "User": self.user, "WorkingDir": "/",
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [&self.name], "Layers": ["layer.tar"] }]);
        let write = |name: &str, value: &serde_json::Value| {
            fs::write(self.folder.join(name), value.to_string()).map_err(|e| format!("{name}: {e}"))
        };
        write("config.json", &config)?;
        write("manifest.json", &manifest)?;
        tar(&["-cf", "image.tar", "manifest.json", "config.json", "layer.tar"])?;
        let file = self.folder.join("image.tar");
        let imported = fs::File::open(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let import = ["-n", "k8s.io", "images", "import", "-"];
        run(namespaces.in_all("ctr", &import).stdin(imported).stdout(Stdio::null()))?;
        // What it was made of is not needed any more, and is not small.
        fs::remove_dir_all(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))
    }
}
