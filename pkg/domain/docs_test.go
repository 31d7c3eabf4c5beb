package domain_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Documentation is made without the build tag, so of the functions that do nothing: they
// have the comments of those that do something.
func TestDocumentedWithoutLibvirt(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	docs, without := map[string]string{}, map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		into := docs
		if name == "nolibvirt.go" {
			into = without
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil { // those of VM are the only exported ones of that name
					into["method "+d.Name.Name] = d.Doc.Text()
				} else {
					into[d.Name.Name] = d.Doc.Text()
				}
			case *ast.GenDecl:
				if spec, ok := d.Specs[0].(*ast.TypeSpec); ok {
					into[spec.Name.Name] = d.Doc.Text()
				}
			}
		}
	}
	if len(without) == 0 {
		t.Error("there is nothing without libvirt")
	}
	for name, doc := range without {
		if docs[name] != doc {
			t.Errorf("%s is documented as\n%s\nand with libvirt as\n%s", name, doc, docs[name])
		}
	}
}
