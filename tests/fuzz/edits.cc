#include "fuzz/edits.h"

#include <algorithm>

#include "base/random.h"
#include "fuzz/fuzz.h"
#include "fuzz/recipes.h"

namespace caw {
namespace {

constexpr size_t kHeadBytes = 2;

Edit random_edit(Random& random) {
  Edit edit;
  edit.kind = static_cast<EditKind>(random.below(kEditKinds));
  // What is inside nodes has the most that can be wrong.
  if (random.one_in(2)) edit.kind = static_cast<EditKind>(random.below(3));
  edit.field = static_cast<uint8_t>(random.next());
  edit.form = static_cast<uint8_t>(random.next());
  edit.length = static_cast<uint8_t>(random.next());
  edit.object = static_cast<uint16_t>(random.next());
  edit.index = static_cast<uint16_t>(random.next());
  edit.value = random.next() >> random.below(64);
  for (char& byte : edit.bytes) byte = static_cast<char>(random.next());
  return edit;
}

/// Another field, thing or value for an edit that is there.
void vary(Edit& edit, Random& random) {
  const Edit other = random_edit(random);
  switch (random.below(6)) {
    case 0:
      edit.field = other.field;
      break;
    case 1:
      edit.object = other.object;
      break;
    case 2:
      edit.index = other.index;
      break;
    case 3:
      edit.form = other.form;
      break;
    case 4:
      edit.value = other.value;
      break;
    default:
      edit.bytes = other.bytes;
      edit.length = other.length;
  }
}

}  // namespace

void mutate(EditScript& script, Random& random) {
  std::vector<Edit>& edits = script.edits;
  const size_t at = edits.empty() ? 0 : random.below(edits.size());
  switch (random.below(8)) {
    case 0:
      if (!edits.empty()) edits.erase(edits.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    case 1:
      if (!edits.empty()) edits.push_back(edits[at]);
      if (!edits.empty()) vary(edits.back(), random);
      break;
    case 2:
      script.recipe = static_cast<uint8_t>(random.next());
      break;
    case 3:
      script.options = static_cast<uint8_t>(random.next());
      break;
    case 4:
    case 5:
      if (!edits.empty()) vary(edits[at], random);
      break;
    default:
      edits.push_back(random_edit(random));
  }
  if (edits.size() > kMaxEdits) edits.erase(edits.begin());
}

EditScript decode_script(std::string_view bytes) {
  Input input(bytes);
  EditScript script;
  script.recipe = input.take<uint8_t>();
  script.options = input.take<uint8_t>();
  while (input.rest().size() >= sizeof(Edit) && script.edits.size() < kMaxEdits) {
    script.edits.push_back(input.take<Edit>());
  }
  return script;
}

std::string encode_script(const EditScript& script) {
  std::string bytes(kHeadBytes, '\0');
  bytes[0] = static_cast<char>(script.recipe);
  bytes[1] = static_cast<char>(script.options);
  for (const Edit& edit : script.edits) {
    bytes.append(reinterpret_cast<const char*>(&edit), sizeof(Edit));
  }
  return bytes;
}

std::vector<std::string> edit_seeds() {
  std::vector<std::string> seeds;
  Random random(7);
  for (uint8_t recipe = 0; recipe < kRecipes; ++recipe) {
    for (const uint8_t options : {uint8_t{0}, uint8_t{1}}) {
      seeds.push_back(encode_script({recipe, options, {}}));
    }
    for (uint8_t kind = 0; kind < kEditKinds; ++kind) {
      Edit edit = random_edit(random);
      edit.kind = static_cast<EditKind>(kind);
      seeds.push_back(encode_script({recipe, kind, {edit}}));
    }
  }
  return seeds;
}

}  // namespace caw
