package spec

import (
	"path"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Args returns a role's own arguments, and whether they are given. If not, those of the image are used; an empty list means none.
func Args(role *apiv1.RoleSpec) (args []string, given bool) {
	for _, value := range role.GetArgs().GetValues() {
		args = append(args, value.GetStringValue())
	}
	return args, role.GetArgs() != nil
}

// SetArgs sets a role's own arguments; an empty list means none.
func SetArgs(role *apiv1.RoleSpec, args []string) {
	role.Args = &structpb.ListValue{}
	for _, arg := range args {
		role.Args.Values = append(role.Args.Values, structpb.NewStringValue(arg))
	}
}

// texts checks that all items of a list are texts.
func (c *checker) texts(key string, list *structpb.ListValue) bool {
	for i, value := range list.GetValues() {
		if _, ok := value.GetKind().(*structpb.Value_StringValue); !ok {
			c.fail(key+"."+strconv.Itoa(i), "an item of %s is not a text; put it in quotation marks", key)
			return false
		}
	}
	return true
}

// checkProgram checks what a role runs: an image or, in a companion app, a program of the node.
func (c *checker) checkProgram(kind apiv1.AppSpec_Kind, role *apiv1.RoleSpec) {
	image, command := role.GetImage(), role.GetCommand()
	switch {
	case image != "":
	case role.GetCompanion() != nil: // the zone fills in what its package says
	case kind == apiv1.AppSpec_COMPANION && len(command) == 0:
		c.fail("", "there is no image, companion or command; give the role one of them")
	case kind != apiv1.AppSpec_COMPANION && len(command) > 0:
		c.fail("command", "the role has no image; only a companion app may run a program of the node")
	case kind != apiv1.AppSpec_COMPANION:
		c.fail("image", "the role has no image; name one that \"mammoth image ls\" lists, as NAME:TAG")
	}
	c.plain("image", "image", image, MaxPath-1)
	c.plain("imageDigest", "imageDigest", role.GetImageDigest(), maxText)
	c.words("command", command)
	if len(command) > 0 && command[0] == "" {
		c.fail("command", "command begins with an empty word; leave the key out for the image's own entry point")
	}
	if c.texts("args", role.GetArgs()) {
		args, _ := Args(role)
		c.words("args", args)
	}
	if corev1.ContainerSpec_Network_name[int32(role.GetNetwork())] == "" {
		c.fail("network", "network must be bridge or host, not %d", role.GetNetwork())
	}
	if dir := role.GetWorkingDir(); dir != "" {
		switch {
		case !path.IsAbs(dir):
			c.fail("workingDir", "workingDir must be a path from the root on, as in /srv, but is %s", quoted(dir))
		case len(dir) >= MaxPath:
			c.fail("workingDir", "workingDir has %d characters, and Linux takes less than %d", len(dir), MaxPath)
		case strings.ContainsRune(dir, 0):
			c.fail("workingDir", "workingDir has a NUL character, which no path can have")
		}
	}
	if user := role.GetUser(); user != "" {
		if err := checkUser(user); err != nil {
			c.fail("user", "%v", err)
		}
	}
}

func (c *checker) checkCompanionApp(role *apiv1.RoleSpec) {
	switch {
	case role.GetImage() == "" && role.GetReadOnlyRoot():
		c.fail("readOnlyRoot", "a program of the node cannot have a read-only root")
	case role.GetPlacement().GetMaxPerNode() > 1:
		c.fail("placement.maxPerNode", "a role of a companion app has one instance a node, so maxPerNode cannot be %d", role.GetPlacement().GetMaxPerNode())
	case role.GetUpdate().GetStrategy() != apiv1.UpdatePolicy_ROLLING || role.GetUpdate().GetOnce().GetStrategy() != apiv1.UpdatePolicy_ROLLING:
		c.fail("update.strategy", "a companion app can be updated with the strategy rolling only: the new instance takes over what the old one leaves on its node")
	}
}
