package guest_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// A clone is equal and shares nothing: no pointer nor slice of it is the original's.
func TestClone(t *testing.T) {
	n := guest.NIC{
		IPv4:    &guest.IPv4{Addresses: make([]netip.Prefix, 1), Routes: make([]guest.Route, 1)},
		IPv6:    &guest.IPv6{Router: &guest.Router{}, Prefixes: make([]netip.Prefix, 1), Routes: make([]guest.Route, 1)},
		Aliases: make([]guest.Alias, 1), Answers: make([]guest.Neighbor, 1), Omitted: make([]discover.Omission, 1),
	}
	c := n.Clone()
	if !reflect.DeepEqual(n, c) || !reflect.DeepEqual(guest.NIC{}, guest.NIC{}.Clone()) {
		t.Errorf("%+v is cloned as %+v", n, c)
	}
	apart(t, "NIC", reflect.ValueOf(n), reflect.ValueOf(c))
}

func apart(t *testing.T, name string, a, b reflect.Value) {
	t.Helper()
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice:
		if a.IsNil() {
			t.Fatalf("the test has no %s", name)
		}
		if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", name)
		}
		if a.Kind() == reflect.Pointer {
			apart(t, name, a.Elem(), b.Elem())
		}
	case reflect.Struct:
		if a.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range a.NumField() {
			apart(t, name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	default: // it is copied
	}
}
