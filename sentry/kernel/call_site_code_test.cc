#include "sentry/kernel/call_site_code.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <string.h>

#include <random>
#include <string>
#include <vector>

namespace caisson {
namespace {

std::vector<uint8_t> Bytes(std::initializer_list<int> bytes) {
  std::vector<uint8_t> code(bytes.begin(), bytes.end());
  code.resize(kCallSiteWindow, 0x90);
  return code;
}

// The lowest slot above `near` that fits.
uint64_t FindSlot(const DisplacedCode& displaced, std::span<const uint8_t> code, uint64_t site, uint64_t near) {
  for (uint64_t slot = near; slot < near + (64 << 10); slot += kCallSlotSize) {
    if (SlotFits(displaced, code, site, slot)) return slot;
  }
  return 0;
}

TEST(CallSiteCode, WhatCompilersWriteCanMove) {
  // cmp $-4096,%rax
  auto cmp = DisplaceCallSite(Bytes({0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x10}));
  ASSERT_TRUE(cmp);
  EXPECT_EQ(cmp->size, 8);
  EXPECT_TRUE(cmp->falls_through);
  // ret; nopl 0x0(%rax,%rax,1)
  auto ret = DisplaceCallSite(Bytes({0x0f, 0x05, 0xc3, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0}));
  ASSERT_TRUE(ret);
  EXPECT_FALSE(ret->falls_through);
  EXPECT_EQ(ret->count, 1u);
  // mov 0x1234(%rip),%rbx
  auto relative = DisplaceCallSite(Bytes({0x0f, 0x05, 0x48, 0x8b, 0x1d, 0x34, 0x12, 0, 0}));
  ASSERT_TRUE(relative);
  EXPECT_EQ(relative->instructions[0].relative, 3);
  // jmp rel32
  auto jump = DisplaceCallSite(Bytes({0x0f, 0x05, 0xe9, 0x34, 0x12, 0, 0}));
  ASSERT_TRUE(jump);
  EXPECT_FALSE(jump->falls_through);
}

TEST(CallSiteCode, WhatCannotMoveStays) {
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x34, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff})));
  // test %eax,%eax; jne: an instruction begins in the last byte of the jump.
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0x85, 0xc0, 0x75, 0x10})));
  // ret, and other code right behind it.
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0xc3, 0x48, 0x89, 0xe5})));
  // call, je, loop, another syscall, nonsense, the end of what can be read.
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0xe8, 0, 0, 0, 0})));
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0x0f, 0x84, 0, 0, 0, 0})));
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0xe2, 0xfe, 0x90})));
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0x0f, 0x05})));
  EXPECT_FALSE(DisplaceCallSite(Bytes({0x0f, 0x05, 0x06})));
  EXPECT_FALSE(DisplaceCallSite(std::vector<uint8_t>{0x0f, 0x05, 0x48}));
}

TEST(CallSiteCode, PlacesCorrespond) {
  auto code = Bytes({0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff});
  auto displaced = DisplaceCallSite(code);
  ASSERT_TRUE(displaced);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotEntry), 0u);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotTrap), 0u);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotContinuation), 2u);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotDisplaced), 2u);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotDisplaced + 6), 8u);
  EXPECT_EQ(OriginalOffset(*displaced, kSlotDisplaced + 1), std::nullopt);
  EXPECT_EQ(OriginalOffset(*displaced, 0), std::nullopt);
}

struct Program {
  std::vector<uint8_t> bytes;
  std::vector<Elf64_Phdr> code;  // Its executable segments.
};

Program ReadProgram(const char* path) {
  Program program;
  FILE* file = fopen(path, "re");
  if (!file) return program;
  uint8_t buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) {
    program.bytes.insert(program.bytes.end(), buffer, buffer + n);
  }
  fclose(file);
  Elf64_Ehdr header;
  memcpy(&header, program.bytes.data(), sizeof header);
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    memcpy(&segment, &program.bytes[header.e_phoff + i * sizeof segment], sizeof segment);
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) program.code.push_back(segment);
  }
  return program;
}

// Each `syscall` of the C library and the dynamic linker: nearly all can be rewritten, and the slot holds, byte for byte
// or with its distance adjusted, what was behind it.
TEST(CallSiteCode, EverySiteOfTheDistribution) {
  size_t sites = 0, moved = 0;
  for (const char* path : {"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox",
                           "/usr/bin/bash", "/usr/bin/python3"}) {
    Program program = ReadProgram(path);
    for (const Elf64_Phdr& segment : program.code) {
      for (uint64_t at = segment.p_offset; at + kCallSiteWindow < segment.p_offset + segment.p_filesz; ++at) {
        const std::span<const uint8_t> code(&program.bytes[at], kCallSiteWindow);
        if (code[0] != 0x0f || code[1] != 0x05) continue;
        ++sites;
        auto displaced = DisplaceCallSite(code);
        if (!displaced) continue;
        ++moved;
        const uint64_t site = 0x7f1234000000 + segment.p_vaddr + (at - segment.p_offset);
        const uint64_t slot = FindSlot(*displaced, code, site, 0x7f1233000000);
        ASSERT_NE(slot, 0u) << path << " " << std::hex << at;
        auto jump = MakeCallJump(site, slot);
        int32_t distance;
        memcpy(&distance, &jump[1], 4);
        EXPECT_EQ(site + 5 + distance, slot + kSlotEntry);
        auto bytes = MakeSlot(*displaced, code, site, slot, 0x7f1233000000);
        uint64_t after;
        memcpy(&after, &bytes[0], 8);
        EXPECT_EQ(after, site + 2);
        uint64_t to = kSlotDisplaced;
        for (size_t i = 0; i < displaced->count; ++i) {
          const auto& insn = displaced->instructions[i];
          for (size_t j = 0; j < insn.size; ++j) {
            if (insn.relative != 0 && j >= insn.relative && j < insn.relative + 4u) continue;
            EXPECT_EQ(bytes[to + j], code[insn.offset + j]);
          }
          if (insn.relative != 0) {
            int32_t old_distance, new_distance;
            memcpy(&old_distance, &code[insn.offset + insn.relative], 4);
            memcpy(&new_distance, &bytes[to + insn.relative], 4);
            EXPECT_EQ(slot + to + new_distance, site + insn.offset + old_distance);
          }
          to += insn.size;
        }
        if (displaced->falls_through) {
          memcpy(&distance, &bytes[to + 1], 4);
          EXPECT_EQ(bytes[to], 0xe9);
          EXPECT_EQ(slot + to + 5 + distance, site + displaced->size);
        }
      }
    }
  }
  EXPECT_GT(sites, 400u);
  // Some of these bytes are not instructions.
  EXPECT_GE(moved * 100, sites * 90) << moved << " of " << sites;
}

// Noise never makes it read or write beyond what it was given.
TEST(CallSiteCode, Noise) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    std::vector<uint8_t> code(kCallJumpSize + random() % kCallSiteWindow);
    for (uint8_t& byte : code) byte = static_cast<uint8_t>(random());
    code[0] = 0x0f;
    code[1] = 0x05;
    auto displaced = DisplaceCallSite(code);
    if (!displaced) continue;
    ASSERT_LE(displaced->size, code.size());
    const uint64_t site = 0x400000 + random() % 4096;
    if (uint64_t slot = FindSlot(*displaced, code, site, 0x200000)) {
      MakeSlot(*displaced, code, site, slot, 0x200000);
    }
  }
}

}  // namespace
}  // namespace caisson
