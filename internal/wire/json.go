package wire

import (
	"errors"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// JSON writes messages as JSON for people and other programs, with zero values. For an Any of an unknown type, such as one of a
// third party's application master, it writes only the name of the type.
var JSON = protojson.MarshalOptions{EmitDefaultValues: true, Resolver: anyTypes{protoregistry.GlobalTypes}}

// anyTypes resolves the types that this program knows, and every other one to an empty message.
type anyTypes struct{ *protoregistry.Types }

func (t anyTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	known, err := t.Types.FindMessageByURL(url)
	if errors.Is(err, protoregistry.NotFound) {
		return (*emptypb.Empty)(nil).ProtoReflect().Type(), nil
	}
	return known, err
}
