package expr

import "reflect"

// Same reports whether two recipes are equal: the same operations on the same bytes of the same
// files. Such recipes give the same bytes, whatever the files hold. Recipes that differ may give
// the same bytes, too.
func Same(a, b Node) bool {
	// Nodes do not change, and they hold no caches and no functions. So all of a node counts.
	return a == b || reflect.DeepEqual(a, b)
}
