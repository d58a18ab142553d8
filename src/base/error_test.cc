#include "base/error.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

namespace caw {
namespace {

struct TableRow {
  const char* name;
  int number;
  int sys_errno;
  const char* text;
};
constexpr TableRow kTable[] = {
#define CAW_ROW(name, number, sys_errno, text) {#name, number, sys_errno, text},
    CAW_ERROR_CODES(CAW_ROW)
#undef CAW_ROW
};

TEST(ErrorTable, NumbersAreUniqueAndAscend) {
  int last = 0;
  for (const TableRow& row : kTable) {
    EXPECT_GT(row.number, last) << row.name;
    last = row.number;
  }
}

TEST(ErrorTable, EveryCodeHasAnErrnoAndAPhraseOfItsOwn) {
  std::set<std::string> phrases;
  for (const TableRow& row : kTable) {
    const Code code{static_cast<uint16_t>(row.number)};
    EXPECT_GT(errno_of(code), 0) << row.name;
    EXPECT_EQ(errno_of(code), row.sys_errno) << row.name;
    EXPECT_EQ(name_of(code), row.name);
    EXPECT_EQ(text_of(code), row.text);
    EXPECT_TRUE(phrases.insert(row.text).second) << row.text << " is said twice";
  }
}

TEST(ErrorTable, PublishedNumbersStay) {
  EXPECT_EQ(static_cast<int>(Code::unknown), 1);
  EXPECT_EQ(static_cast<int>(Code::device_open), 100);
  EXPECT_EQ(static_cast<int>(Code::not_a_volume), 200);
  EXPECT_EQ(static_cast<int>(Code::no_space), 300);
  EXPECT_EQ(static_cast<int>(Code::meta_page), 400);
  EXPECT_EQ(static_cast<int>(Code::node_absent), 500);
  EXPECT_EQ(static_cast<int>(Code::node_height), 600);
  EXPECT_EQ(static_cast<int>(Code::tree_not_private), 700);
  EXPECT_EQ(static_cast<int>(Code::not_found), 800);
  EXPECT_EQ(static_cast<int>(Code::fuse_device), 900);
  EXPECT_EQ(static_cast<int>(Code::usage), 1000);
  EXPECT_EQ(static_cast<int>(Code::check_found), 1100);
}

TEST(ErrorTable, ANumberThatIsNotInItIsAnIoError) {
  const Code none{65535};
  EXPECT_EQ(errno_of(none), EIO);
  EXPECT_EQ(text_of(none), "unknown error");
}

TEST(Error, TheSystemsErrnoComesBeforeTheCodes) {
  EXPECT_EQ((Error{Code::device_open}).as_errno(), EIO);
  EXPECT_EQ((Error{Code::device_open, ENOENT}).as_errno(), ENOENT);
  EXPECT_EQ((Error{Code::device_write, ENOTCONN}).as_errno(), EIO);
}

TEST(Error, SaysWhatWhyAndWhere) {
  EXPECT_EQ((Error{Code::no_space}).to_string(), "the volume is full");
  EXPECT_EQ((Error{Code::device_open, ENOENT}).to_string(),
            "cannot open the image or device (No such file or directory)");
  EXPECT_EQ((Error{Code::node_checksum, 0, 77, "load"}).to_string(),
            "checksum mismatch in a node [node_checksum 77 load]");
  EXPECT_EQ((Error{Code::node_checksum, 0, 77, ""}).to_string(),
            "checksum mismatch in a node [node_checksum 77]");
}

Result<int> half(int number) {
  if (number % 2 != 0) return fail(Code::invalid_argument, static_cast<uint64_t>(number), "half");
  return number / 2;
}
Result<std::unique_ptr<int>> boxed_quarter(int number) {
  return std::make_unique<int>(CAW_TRY(half(CAW_TRY(half(number)))));
}
Result<void> check_quarter(int number, bool& reached_end) {
  const std::unique_ptr<int> quarter = CAW_TRY(boxed_quarter(number));
  CAW_TRY(half(*quarter));
  reached_end = true;
  return {};
}

TEST(Try, GivesTheValueOrReturnsTheError) {
  bool reached_end = false;
  EXPECT_TRUE(check_quarter(8, reached_end));
  EXPECT_TRUE(reached_end);
  for (int number : {3, 6, 12}) {
    reached_end = false;
    const Result<void> result = check_quarter(number, reached_end);
    ASSERT_FALSE(result);
    EXPECT_FALSE(reached_end);
    EXPECT_EQ(result.error().code, Code::invalid_argument);
    EXPECT_EQ(result.error().detail, 3U);
    EXPECT_STREQ(result.error().where, "half");
  }
}

}  // namespace
}  // namespace caw
