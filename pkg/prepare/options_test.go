package prepare_test

import (
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Options are those of an internal package, whose fields go doc does not show.
func TestOptionsAreDocumented(t *testing.T) {
	source, err := os.ReadFile("options.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[prepare.Options]()) {
		if !regexp.MustCompile(`(?m)^//\t` + field.Name + ` `).Match(source) {
			t.Errorf("the comment does not name the field %s", field.Name)
		}
	}
}
