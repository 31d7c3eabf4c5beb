package prepare_test

import (
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// What is an internal package's has fields that go doc does not show.
func TestAliasesAreDocumented(t *testing.T) {
	for file, types := range map[string][]reflect.Type{
		"options.go":    {reflect.TypeFor[prepare.Options](), reflect.TypeFor[prepare.Owner](), reflect.TypeFor[prepare.NameTakenError]()},
		"difference.go": {reflect.TypeFor[prepare.Difference]()},
		"guard.go":      {reflect.TypeFor[prepare.GuardCounter]()},
		"plan.go":       {reflect.TypeFor[prepare.Link]()},
	} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range types {
			for _, field := range reflect.VisibleFields(typ) {
				if !regexp.MustCompile(`(?m)^//\t` + field.Name + ` `).Match(source) {
					t.Errorf("%s: the comment of %s does not name the field %s", file, typ.Name(), field.Name)
				}
			}
		}
	}
}
