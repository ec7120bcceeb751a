package permission

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestParseReadsWhatStringWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	acls := 0
	for range 1000 {
		n := Random(r, []uint32{1, 2}, []uint32{3, 4}, true)
		if got := Parse(n.String()); !reflect.DeepEqual(got, n) {
			t.Fatalf("%s is read as %+v, not %+v", n, got, n)
		}
		if n.ACL != nil {
			acls++
		}
	}
	if acls < 200 || acls > 500 {
		t.Errorf("%d of 1000 have an ACL", acls)
	}
}

// The examples are those of acl(5) and of the kernel's source.
func TestAllows(t *testing.T) {
	for _, c := range []struct {
		inode string
		user  Person
		want  bool
	}{
		{"1:2 0640", Person{1, nil}, true},
		{"1:2 0640", Person{9, []uint32{2}}, true},
		{"1:2 0640", Person{9, []uint32{3}}, false},
		{"1:2 0044", Person{1, []uint32{2}}, false}, // the owner is only the owner
		{"1:2 0604", Person{9, []uint32{2}}, false},
		{"1:2 0640 u:9:4 g::0 m::4 a::0", Person{9, nil}, true},
		{"1:2 0640 u:9:4 g::0 m::4 a::0", Person{8, []uint32{2}}, false},
		{"1:2 0620 u:9:4 g::4 m::2 a::0", Person{9, nil}, false},           // masked
		{"1:2 0644 u:9:0 g::4 m::4 a::4", Person{9, []uint32{2}}, false},   // a named user is only that
		{"1:2 0644 g::0 g:3:4 m::4 a::4", Person{9, []uint32{2, 3}}, true}, // any group of the user counts
		{"1:2 0644 g::0 g:3:4 m::4 a::4", Person{9, []uint32{2}}, false},
		{"1:2 0604 u:9:4 g::4 m::0 a::4", Person{9, nil}, true}, // Linux looks at no ACL here
	} {
		if got := Parse(c.inode).Allows(c.user, Read); got != c.want {
			t.Errorf("%s, %v: %v", c.inode, c.user, got)
		}
	}
	if n := Parse("1:2 0604 u:9:4 g::4 m::0 a::4"); n.AllowsByACL(Person{9, nil}, Read) {
		t.Error("the ACL says otherwise")
	}
}
