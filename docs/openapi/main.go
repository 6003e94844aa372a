// Command openapi finishes the description of the REST face that is generated from the .proto files: what it is called, which
// operations answer with a stream, and how the texts look that stand for numbers and durations. What the description allows
// is what the gateway can read.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
)

const path = "proto/mammoth/api/v1/openapi.swagger.json"

type object = map[string]any

// description is the description of the API while it is finished.
type description struct {
	// used are the rules and the required fields that met their field or message.
	used map[string]bool
}

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("openapi: ", err)
	}
}

func run() error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var whole object
	if err := json.Unmarshal(raw, &whole); err != nil {
		return err
	}
	whole["info"] = object{
		"title": "Mammoth", "version": apiv1.OpenAPIVersion,
		"description": "What people, the command line and other programs ask of a zone. Each service is served as gRPC and as REST/JSON.",
	}
	d := description{used: map[string]bool{}}
	definitions := whole["definitions"].(object)
	known := messages()
	for name, definition := range definitions {
		if message := known[name]; message != nil {
			d.define(definition.(object), message)
		}
	}
	for _, operations := range whole["paths"].(object) {
		for _, operation := range operations.(object) {
			d.finish(operation.(object), definitions)
		}
	}
	if err := d.unused(); err != nil {
		return err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(whole); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// messages are the messages of the API by what the generator calls them.
func messages() map[string]protoreflect.MessageDescriptor {
	known := map[string]protoreflect.MessageDescriptor{}
	var walk func(prefix string, list protoreflect.MessageDescriptors)
	walk = func(prefix string, list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			name := string(list.Get(i).Name())
			if prefix == "" {
				known["v1"+name] = list.Get(i)
			} else {
				// With the package before it where another message has the same name.
				known[prefix+name], known["v1"+prefix+name] = list.Get(i), list.Get(i)
			}
			walk(prefix+name, list.Get(i).Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(file.Path(), "mammoth/api/") || strings.HasPrefix(file.Path(), "mammoth/core/") {
			walk("", file.Messages())
			for i := range file.Services().Len() {
				service := file.Services().Get(i)
				for j := range service.Methods().Len() {
					method := service.Methods().Get(j)
					known[string(service.Name())+string(method.Name())+"Body"] = method.Input()
					known[string(service.Name())+"_"+string(method.Name())] = method.Input()
				}
			}
		}
		return true
	})
	return known
}

// define says of a message what its fields take. The gateway refuses what it does not know.
func (d description) define(definition object, message protoreflect.MessageDescriptor) {
	definition["additionalProperties"] = false
	properties, _ := definition["properties"].(object)
	var needed []string
	name := string(message.FullName())
	d.used[name] = true
	for _, field := range required[name] {
		// What is a part of the path is not one of the body.
		field := message.Fields().ByName(protoreflect.Name(field)).JSONName()
		if _, ok := properties[field]; ok {
			needed = append(needed, field)
		}
	}
	if needed != nil {
		definition["required"] = needed
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if property, ok := properties[field.JSONName()].(object); ok {
			d.describe(property, field)
		}
	}
}

// describe says what one field takes.
func (d description) describe(property object, field protoreflect.FieldDescriptor) {
	rule := rules[string(field.FullName())]
	d.used[string(field.FullName())] = true
	kind := field.Kind()
	switch {
	case field.IsMap():
		property, field = property["additionalProperties"].(object), field.MapValue()
		kind = field.Kind()
	case field.IsList():
		property = property["items"].(object)
	}
	switch {
	case kind == protoreflect.Int64Kind || kind == protoreflect.Uint64Kind:
		property["pattern"] = "^(0|-?[1-9][0-9]{0,17})$"
	case kind == protoreflect.Int32Kind:
		property["minimum"], property["maximum"] = -1<<31, 1<<31-1
	case kind == protoreflect.MessageKind && field.Message().FullName() == "google.protobuf.Duration":
		property["pattern"], property["example"] = `^-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?s$`, "10s"
	case kind == protoreflect.MessageKind && field.Message().FullName() == "google.protobuf.ListValue":
		property["items"] = object{"type": "string"}
	}
	for key, value := range rule {
		property[key] = value
	}
}

// amount is of what nobody has less than nothing.
const amount = "^(0|[1-9][0-9]{0,17})$"

// lasting is a duration of whole seconds that lies between two others, with both.
func lasting(least, most time.Duration) object {
	low, high := int64(least/time.Second), int64(most/time.Second)
	return object{"pattern": fmt.Sprintf(`^((%s)(\.[0-9]{1,9})?|%d)s$`, strings.Join(between(low, high-1), "|"), high)}
}

// between are expressions that together match the numbers from low to high in decimal.
func between(low, high int64) []string {
	var parts []string
	for low <= high {
		// As many of the last digits as can be any: from low on up to the end of such a run.
		free, run := 0, int64(1)
		for low%(run*10) == 0 && low != 0 && low+run*10-1 <= high {
			free, run = free+1, run*10
		}
		digit := low / run % 10
		last := min(9, digit+(high-low+1)/run-1)
		head := ""
		if low/run >= 10 {
			head = fmt.Sprint(low / run / 10)
		}
		part := fmt.Sprintf("%s[%d-%d]", head, digit, last)
		if free > 0 {
			part += fmt.Sprintf("[0-9]{%d}", free)
		}
		parts = append(parts, part)
		low += (last - digit + 1) * run
	}
	return parts
}

// rules are what a value may be, where a schema can say it.
var rules = map[string]object{
	"mammoth.api.v1.AppSpec.name":                   {"pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"},
	"mammoth.api.v1.AppSpec.queue":                  {"pattern": "^([A-Za-z][A-Za-z0-9_-]{0,39})?$"},
	"mammoth.api.v1.AppSpec.priority":               {"minimum": -1_000_000, "maximum": 1_000_000},
	"mammoth.api.v1.AppSpec.framework":              {"pattern": "^([a-z]([a-z0-9-]{0,38}[a-z0-9])?)?$"},
	"mammoth.api.v1.FrameworkPackage.name":          {"pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"},
	"mammoth.api.v1.StartMasterRequest.queue":       {"pattern": "^([A-Za-z][A-Za-z0-9_-]{0,39})?$"},
	"mammoth.api.v1.StartMasterRequest.priority":    {"minimum": -1_000_000, "maximum": 1_000_000},
	"mammoth.api.v1.RoleSpec.instances":             {"minimum": 0, "maximum": spec.MaxInstances},
	"mammoth.api.v1.ScheduleEntry.instances":        {"minimum": 0, "maximum": spec.MaxInstances},
	"mammoth.api.v1.ScaleAppRequest.instances":      {"minimum": 1, "maximum": spec.MaxInstances},
	"mammoth.api.v1.RollbackAppRequest.version":     {"minimum": 0, "maximum": 1<<31 - 1},
	"mammoth.api.v1.UpdatePolicy.max_error_percent": {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.AppLogsRequest.tail":            {"minimum": 0, "maximum": 1<<31 - 1},
	"mammoth.api.v1.WatchEventsRequest.tail":        {"minimum": 0, "maximum": 1<<31 - 1},
	"mammoth.api.v1.WatchEventsRequest.kind":        {"enum": eventlog.Kinds},
	"mammoth.api.v1.Event.kind":                     {"enum": eventlog.Kinds},
	"mammoth.api.v1.ContractSpec.lend_percent":      {"minimum": 0, "exclusiveMinimum": true, "maximum": 100},
	"mammoth.api.v1.ContractSpec.floor_percent":     {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.ContractSpec.notice":            lasting(0, 24*time.Hour),
	"mammoth.api.v1.ContractSpec.grace":             lasting(0, 24*time.Hour),
	"mammoth.api.v1.LendingWindow.duration":         lasting(time.Minute, 31*24*time.Hour),
	"mammoth.api.v1.LendNowRequest.for":             lasting(0, 31*24*time.Hour),
	"mammoth.api.v1.Capacity.percent":               {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.QueueSpec.max_apps":             {"minimum": 0, "maximum": 1<<31 - 1},
	"mammoth.api.v1.QueueSpec.max_master_percent":   {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.QueueSpec.user_limit_percent":   {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.QueueSpec.notice":               lasting(0, 24*time.Hour),
	// How long a request waits at most is cut down to 10m.
	"mammoth.api.v1.GetServiceRequest.wait":         {"pattern": `^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?s$`},
	"mammoth.api.v1.RegisterEndpointRequest.port":   {"minimum": 0, "maximum": 65535},
	"mammoth.api.v1.RegisterEndpointRequest.ports":  {"minimum": 1, "maximum": 65535},
	"mammoth.api.v1.RegisterEndpointRequest.weight": {"minimum": 0, "maximum": 10_000},
	"mammoth.api.v1.RegisterEndpointRequest.lease":  lasting(2*time.Second, 10*time.Minute),
	"mammoth.core.v1.Resources.cpu_millis":          {"pattern": amount},
	"mammoth.core.v1.Resources.memory_bytes":        {"pattern": amount},
	"mammoth.core.v1.Resources.disk_bytes":          {"pattern": amount},
	"mammoth.core.v1.Resources.ports":               {"pattern": amount},
	"mammoth.core.v1.Resources.extended":            {"pattern": amount},
	"mammoth.core.v1.Port.name":                     {"pattern": "^[a-z][a-z0-9-]{0,14}$"},
	"mammoth.core.v1.Port.container_port":           {"minimum": 0, "maximum": 65535},
}

// required are the fields that a message cannot be without: what they are when absent is refused.
var required = map[string][]string{
	"mammoth.api.v1.AppSpec":          {"name"},
	"mammoth.api.v1.FrameworkPackage": {"name", "master"},
	"mammoth.api.v1.ContractSpec":     {"name", "lender", "borrowers", "lend_percent"},
	"mammoth.api.v1.QueueSpec":        {"name"},
	"mammoth.api.v1.ScaleAppRequest":  {"instances"},
	"mammoth.core.v1.Port":            {"name"},
}

// unused is an error when a name in the tables of rules and of required fields is no longer one of the API's.
func (d description) unused() error {
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(rules)), slices.Sorted(maps.Keys(required))) {
		if !d.used[name] {
			return fmt.Errorf("there is a rule for %s, which the description does not have", name)
		}
	}
	return nil
}

// manifest is what a manifest has in any case. Its keys are described in docs/manifest.md, and an unknown one is refused with the nearest
// that there is.
var manifest = object{
	"type": "object", "description": "The app's manifest. docs/manifest.md describes its keys.", "required": []string{"name"},
	"properties":           object{"name": object{"type": "string", "pattern": rules["mammoth.api.v1.AppSpec.name"]["pattern"]}},
	"additionalProperties": true,
}

// finish says of an operation what its parameters take, and of a stream that it is one.
func (d description) finish(operation object, definitions object) {
	id := operation["operationId"].(string)
	request := messages()[id]
	parameters, _ := operation["parameters"].([]any)
	parameters = slices.DeleteFunc(parameters, func(each any) bool {
		// What a query of the generator's would spell field by field, nothing takes.
		return strings.ContainsAny(each.(object)["name"].(string), ".[")
	})
	if len(parameters) > 0 {
		operation["parameters"] = parameters
	}
	for _, each := range parameters {
		parameter := each.(object)
		if parameter["in"] == "body" && parameter["name"] == "manifest" {
			operation["consumes"] = []string{"application/yaml", "application/json"}
			parameter["schema"] = manifest
		}
		if request == nil || parameter["in"] != "query" {
			continue
		}
		if field := request.Fields().ByJSONName(parameter["name"].(string)); field != nil {
			d.describe(parameter, field)
		}
	}
	responses := operation["responses"].(object)
	answer := responses["200"].(object)
	schema, _ := answer["schema"].(object)
	title, _ := schema["title"].(string)
	if !strings.HasPrefix(title, "Stream result of ") {
		return
	}
	result := schema["properties"].(object)["result"]
	answer["schema"] = result
	answer["description"] = "A stream: one JSON object a line, each as soon as there is one."
	operation["x-stream"] = true
	text, _ := operation["summary"].(string)
	operation["summary"] = strings.TrimSpace(fmt.Sprintf("%s A stream.", text))
}
