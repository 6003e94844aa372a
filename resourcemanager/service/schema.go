package service

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// schemaURL is the base URL of a schema while it is compiled. It is not loaded.
const schemaURL = "framework:///options"

// schema is the schema of the options of a framework's apps; compiled is nil if they have no options.
type schema struct {
	framework string
	compiled  *jsonschema.Schema
}

// schemaOf compiles the JSON Schema of a framework's options, of the draft 2020-12 unless it names another. An error is of type
// spec.Faults, with the place in the package.
func schemaOf(p *apiv1.FrameworkPackage) (schema, error) {
	read := schema{framework: p.GetName()}
	if p.GetOptions() == nil {
		return read, nil
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(nowhere{})
	err := compiler.AddResource(schemaURL, p.GetOptions().AsMap())
	if err == nil {
		read.compiled, err = compiler.Compile(schemaURL)
	}
	if err != nil {
		return read, badSchema(err)
	}
	return read, nil
}

// nowhere loads nothing: a schema must not make the ResourceManager read files or connect to other machines.
type nowhere struct{}

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) {
	return nil, errors.New("nothing outside of the package is read")
}

func badSchema(err error) error {
	fault := spec.Fault{Key: []string{"options"}}
	var refused *jsonschema.SchemaValidationError
	var invalid *jsonschema.ValidationError
	var elsewhere *jsonschema.LoadURLError
	switch {
	case errors.As(err, &refused) && errors.As(refused.Err, &invalid):
		first := leaf(invalid)
		fault.Key = append(fault.Key, first.InstanceLocation...)
		fault.Sentence = fmt.Sprintf("%s is not what JSON Schema has there: %s", strings.Join(fault.Key, "."), reading(first))
	case errors.As(err, &elsewhere):
		fault.Sentence = fmt.Sprintf("the schema of the options refers to %q, and nothing outside of the package is read; write it into the schema, under $defs", elsewhere.URL)
	default:
		fault.Sentence = "options is no JSON Schema: " + strings.ReplaceAll(err.Error(), schemaURL, "")
	}
	return spec.Faults{fault}
}

// check checks an app's options.
func (s schema) check(options *structpb.Struct) spec.Faults {
	switch {
	case s.compiled == nil && options == nil:
		return nil
	case s.compiled == nil:
		return spec.Faults{{Key: []string{"options"}, Sentence: fmt.Sprintf("the framework %s reads no options; remove them", s.framework)}}
	}
	given := options.AsMap()
	if given == nil {
		given = map[string]any{}
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(s.compiled.Validate(given), &invalid) {
		return nil
	}
	first := leaf(invalid)
	key := append([]string{"options"}, first.InstanceLocation...)
	return spec.Faults{{Key: key, Sentence: fmt.Sprintf("%s is not what the framework %s takes: %s; \"mammoth framework show %s\" has its schema",
		strings.Join(key, "."), s.framework, reading(first), s.framework)}}
}

// leaf is the first root cause of a validation error, by its place in the options.
func leaf(from *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(from.Causes) > 0 {
		from = slices.MinFunc(from.Causes, func(a, b *jsonschema.ValidationError) int {
			return cmp.Compare(strings.Join(a.InstanceLocation, "/"), strings.Join(b.InstanceLocation, "/"))
		})
	}
	return from
}

func reading(mistake *jsonschema.ValidationError) string {
	return mistake.ErrorKind.LocalizedString(message.NewPrinter(language.English))
}
