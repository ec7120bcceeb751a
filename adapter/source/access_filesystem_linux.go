package source

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// readableSystems are the file systems with known permissions, by the number that statfs returns.
// Mode and POSIX ACL alone decide, unless the function of the row finds something else. On other
// file systems a server may decide, or another kind of ACL.
var readableSystems = map[uint32]func(g *grant, fd int, m mount) string{
	unix.EXT4_SUPER_MAGIC:      nil, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:       nil,
	unix.BTRFS_SUPER_MAGIC:     nil,
	unix.F2FS_SUPER_MAGIC:      nil,
	unix.BCACHEFS_SUPER_MAGIC:  nil,
	0x2fc12fc1:                 nil, // ZFS
	0x3153464a:                 nil, // JFS
	unix.REISERFS_SUPER_MAGIC:  nil,
	unix.NILFS_SUPER_MAGIC:     nil,
	unix.TMPFS_MAGIC:           nil,
	unix.RAMFS_MAGIC:           nil,
	unix.OVERLAYFS_SUPER_MAGIC: nil,
	unix.ECRYPTFS_SUPER_MAGIC:  nil,
	unix.AUTOFS_SUPER_MAGIC:    nil,
	unix.SQUASHFS_MAGIC:        nil,
	unix.EROFS_SUPER_MAGIC_V1:  nil,
	unix.ISOFS_SUPER_MAGIC:     nil,
	unix.UDF_SUPER_MAGIC:       nil,
	unix.MSDOS_SUPER_MAGIC:     nil,
	unix.EXFAT_SUPER_MAGIC:     nil,
	0x7366746e:                 nil, // NTFS
	unix.CEPH_SUPER_MAGIC:      nil,
	0x0bd00bd0:                 nil, // Lustre
	unix.NFS_SUPER_MAGIC:       (*grant).overNFS,
	unix.FUSE_SUPER_MAGIC:      (*grant).overFUSE,
}

// filesystem says why mode and POSIX ACL are not all that counts. It is empty if they are.
func (g *grant) filesystem(fd int, m *mountTable) string {
	var st unix.Statfs_t
	if _, err := again(func() (int, error) { return 0, unix.Fstatfs(fd, &st) }); err != nil {
		return "cannot be looked at: " + err.Error()
	}
	kind := uint32(st.Type)
	look, known := readableSystems[kind]
	switch {
	case !known:
		const unknown = "is on a file system (%#x) that may have other rules than its modes"
		return fmt.Sprintf(unknown, kind)
	case look == nil:
		return ""
	}
	at, err := m.of(g.dev)
	if err != nil {
		return "is on a mount that cannot be looked at: " + err.Error()
	}
	return look(g, fd, at)
}

// overFUSE checks the options of a FUSE file system. Without allow_other it is for one user only,
// whatever its modes say. Without default_permissions its server decides.
func (g *grant) overFUSE(fd int, m mount) string {
	if m.kind == "virtiofs" { // the kernel checks the modes
		return ""
	}
	for _, option := range []string{"allow_other", "default_permissions"} {
		if !slices.Contains(m.options, option) {
			return fmt.Sprintf("is on a FUSE file system mounted without %s", option)
		}
	}
	if acl, err := attribute(fd, "system.posix_acl_access"); err != nil || acl != nil {
		return "has an ACL on a FUSE file system, which may ignore it"
	}
	return ""
}

// overNFS checks whether the server may decide by other rules.
func (g *grant) overNFS(fd int, m mount) string {
	for _, option := range m.options {
		if how, ok := strings.CutPrefix(option, "sec="); ok && how != "sys" {
			return fmt.Sprintf("is on NFS with sec=%s, where the server decides", how)
		}
	}
	acl, err := attribute(fd, "system.nfs4_acl")
	if err != nil || acl != nil && !plainNFS4(acl) {
		return "has an NFSv4 ACL"
	}
	return ""
}

// mount is the entry of a file system in the table of mounts.
type mount struct {
	kind    string
	options []string // of the file system, not of the place where it is mounted
}

// mountTable finds mounts by the numbers of their devices. The zero value is ready.
type mountTable struct{ mounts map[uint64]mount }

func (m *mountTable) of(dev uint64) (mount, error) {
	if m.mounts == nil {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return mount{}, err
		}
		m.mounts = parseMounts(string(text))
	}
	found, ok := m.mounts[dev]
	if !ok {
		major, minor := unix.Major(dev), unix.Minor(dev)
		return mount{}, fmt.Errorf("no mount has the device %d:%d", major, minor)
	}
	return found, nil
}

// parseMounts reads the text of /proc/self/mountinfo.
func parseMounts(text string) map[uint64]mount {
	all := map[uint64]mount{}
	for line := range strings.Lines(text) {
		place, rest, ok := strings.Cut(line, " - ")
		var id, parent int
		var major, minor uint32
		_, err := fmt.Sscanf(place, "%d %d %d:%d", &id, &parent, &major, &minor)
		if err != nil || !ok {
			continue
		}
		if fields := strings.Fields(rest); len(fields) == 3 {
			all[unix.Mkdev(major, minor)] = mount{fields[0], strings.Split(fields[2], ",")}
		}
	}
	return all
}
