//go:build !linux || !cgo || !libvirt_dlopen

package domain

import (
	"errors"
	"testing"
)

func TestStartWithoutSupport(t *testing.T) {
	vm, err := Start(t.Context(), nil, "qemu:///system", []byte("<domain/>"))
	if vm != nil || !errors.Is(err, errNoLibvirt) {
		t.Errorf("got %v, %v", vm, err)
	}
}
