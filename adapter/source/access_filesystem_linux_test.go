package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountsAreFoundByTheirDevice(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
31 22 0:28 / /home/a\040b rw - fuse.sshfs host:/a\040- rw,user_id=1000,group_id=1000
32 22 0:29 /sub /mnt rw,nosuid shared:7 master:2 - fuse.bindfs a rw,user_id=0,group_id=0,default_permissions,allow_other
what is no line of it
33 22 0:30 / /n rw - nfs4 server:/ rw,vers=4.2,sec=krb5p`
	table := mountTable{parseMounts(text)}
	for device, want := range map[uint64]mount{
		unix.Mkdev(254, 0): {"ext4", []string{"rw", "errors=remount-ro"}},
		unix.Mkdev(0, 28):  {"fuse.sshfs", []string{"rw", "user_id=1000", "group_id=1000"}},
		unix.Mkdev(0, 29):  {"fuse.bindfs", []string{"rw", "user_id=0", "group_id=0", "default_permissions", "allow_other"}},
		unix.Mkdev(0, 30):  {"nfs4", []string{"rw", "vers=4.2", "sec=krb5p"}},
	} {
		if got, err := table.of(device); err != nil || got.kind != want.kind ||
			!slices.Equal(got.options, want.options) {
			t.Errorf("%d: %+v, %v; want %+v", device, got, err, want)
		}
	}
	if m, err := table.of(unix.Mkdev(0, 99)); err == nil {
		t.Errorf("a device that is not there: %+v", m)
	}
}

func TestFileSystemsWhoseServersDecide(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := &grant{}
	for _, c := range []struct {
		look    func(*grant, int, mount) string
		kind    string
		options string
		want    string
	}{
		{(*grant).overFUSE, "fuse.sshfs", "rw,user_id=0", "allow_other"},
		{(*grant).overFUSE, "fuse.sshfs", "rw,default_permissions", "without allow_other"},
		{(*grant).overFUSE, "fuse.rclone", "rw,allow_other", "without default_permissions"},
		{(*grant).overFUSE, "fuse.bindfs", "rw,allow_other,default_permissions", ""},
		{(*grant).overFUSE, "virtiofs", "rw", ""},
		{(*grant).overNFS, "nfs4", "rw,sec=sys", ""},
		{(*grant).overNFS, "nfs", "rw", ""},
		{(*grant).overNFS, "nfs4", "rw,sec=krb5", "sec=krb5"},
	} {
		got := c.look(g, int(file.Fd()), mount{c.kind, strings.Split(c.options, ",")})
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.kind, c.options, got, c.want)
		}
	}
	// A file system that is not in the table.
	proc, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if got := g.filesystem(int(proc.Fd()), &mountTable{}); !strings.Contains(got,
		"may have other rules") {
		t.Errorf("/proc: %q", got)
	}
}

const namespaceEnv = "DEQUANTFS_TEST_NAMESPACE"

// In a user namespace or on an idmapped mount, some users and groups have no id. The kernel shows
// them all as one id, which another user or group may have.
func TestUsersOutsideOfTheNamespaceAreNobody(t *testing.T) {
	if name := os.Getenv(namespaceEnv); name != "" {
		inNamespace(t, name)
		return
	}
	if os.Geteuid() != 0 {
		if list := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ","); slices.Contains(list,
			"root") || slices.Contains(list, "all") {
			t.Fatal("root is required")
		}
		t.Skip("needs root")
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUsersOutsideOfTheNamespaceAreNobody$")
	cmd.Env = append(os.Environ(), namespaceEnv+"="+name)
	few := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1},
		{ContainerID: 65534, HostID: 5555, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: few,
		GidMappings: few}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func inNamespace(t *testing.T, name string) {
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 65534 || st.Gid != 65534 {
		t.Fatalf("the kernel shows %d:%d", st.Uid, st.Gid)
	}
	g := &grant{want: canRead}
	g.inspect(int(file.Fd()), &mountTable{})
	if g.unknown != "" || g.users[0].id != noID || g.groups[0].id != noID {
		t.Errorf("%+v", g)
	}
	// Its owner and group may read it, and so may all others.
	a := &Access{[]*grant{g}}
	if !a.Others(0, 0) || !a.Members(0, 65534) {
		t.Error("it is open to all")
	}
	g.groups[0].bits = 0
	if a.Others(0, 65534) || a.Members(0, 65534) {
		t.Error("group 65534 is taken for the group from outside")
	}
}
